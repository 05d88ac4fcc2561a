function base64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000)
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  return btoa(text);
}

function quoted(text) { return "'" + text.replaceAll("'", "'\\''") + "'"; }

async function prepare() {
  at("about").innerHTML = '<label>Model <select id="model"></select></label>';
  at("more").innerHTML =
    '<details><summary>The request</summary><pre id="request"></pre></details>';
  const { models } = await (await fetch("/v1/models")).json();
  at("model").append(...models.map((name) => new Option(name)));
}

async function answers(file) {
  const url = `${location.origin}/v1/models/${encodeURIComponent(at("model").value)}:predict`;
  const name = quoted(file.name || "picture.jpg");
  at("request").textContent =
    `base64 -w0 < ${name} | sed 's/.*/{"signature_name": "serve_bytes", ` +
    `"instances": [{"b64": "&"}]}/' | curl --data-binary @- ${quoted(url)}`;
  const bytes = new Uint8Array(await file.arrayBuffer());
  const body = { signature_name: "serve_bytes", instances: [{ b64: base64(bytes) }] };
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  const { valid, known, classes, names, scores, present, values } = answer.predictions[0];
  if (valid === false) throw new Error("The server cannot read this file as a picture.");
  const numbers = scores ?? values;
  const rows = (classes ?? names).map((label, place) => [
    present?.[place] ? `✓ ${label}` : label, numbers[place], scores ? numbers[place] : 0]);
  if (present) rows.sort((one, two) => two[1] - one[1]);
  return { rows, known };
}
