// Not an import at the top: that of a page which was opened as a file says nothing.
const network = import("./classify.js").then((module) => module.load());

async function classified(file) { return (await network).classify(file); }

async function prepare() {
  if (location.protocol === "file:")
    throw new Error("open it through a server, as README.md in its folder says.");
  at("about").textContent = "Loading the network ...";
  const { name } = await network;
  at("about").textContent = `${name} runs in this browser: pictures stay on this device.`;
}

async function answers(file) {
  const { scores, known } = await classified(file), { labels } = await network;
  const order = [...labels.keys()].sort((one, two) => scores[two] - scores[one]);
  return { rows: order.slice(0, 5).map((number) => [labels[number], scores[number]]), known };
}
