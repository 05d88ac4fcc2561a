// From an image file to probabilities, as the network was measured with:
//
//   import { load } from "./classify.js";
//   const { labels, classify } = await load();
//   const { scores, known } = await classify(file); // a File or Blob
//
// `scores` are float32 probabilities in the order of `labels`; `known` is false for a picture of none
// of them, if the network was exported with --reject.
// Pixels are resized here, not by a canvas, which averages in another way.
import * as ort from "./ort.wasm.bundle.min.mjs";

const f32 = Math.fround; // the rounding of the original, so that the results are equal

const KERNELS = {
  bilinear: { radius: 1, at: (x) => Math.max(0, 1 - x) },
  bicubic: {
    radius: 2,
    at: (x) => x < 1 ? polynomial(x, 1.5, -2.5, 0, 1) : x < 2 ? polynomial(x, -0.5, 2.5, -4, 2) : 0,
  },
};

export async function load(folder = new URL(".", import.meta.url)) {
  const { name, labels, transform } = await (await fetch(new URL("metadata.json", folder))).json();
  // Threads would need a server that sends special headers.
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new URL("model.onnx", folder).href);
  const [height, width] = transform.image_size;

  async function classify(file) {
    const image = transformed(await pixels(file, transform.background), transform);
    const input = new ort.Tensor("float32", Float32Array.from(image), [1, height, width, 3]);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    const known = outputs.known && outputs.known.data[0] > 0.5;
    return { scores: outputs[session.outputNames[0]].data, known };
  }

  const probabilities = async (file) => (await classify(file)).scores;
  return { name, labels, classify, probabilities };
}

/** The pixels of an image file as a canvas gives them: red, green, blue and a fourth byte. */
async function pixels(file, background) {
  let bitmap;
  try {
    // Upright by its EXIF data; colours as they are in the file.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("The browser cannot read this file as a picture.");
  }
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${background})`;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Resizes and crops or pads `{ data, height, width }`; returns bytes (height, width, 3). */
export function transformed({ data, height, width }, { image_size, background, ...how }) {
  const [rows, columns] = [height, width].map((side, axis) => {
    const size = image_size[axis];
    const resized = resizedSide(side, size, { height, width, image_size, ...how });
    return averages(side, resized, size, toEven((resized - size) / 2), how);
  });
  // Rows first: of a row only the columns of the crop are needed afterwards.
  const image = new Uint8ClampedArray(image_size[0] * image_size[1] * 3);
  const line = new Float32Array(width * 4);
  let place = 0;
  for (const row of rows) {
    line.fill(0);
    row?.weights.forEach((weight, k) => {
      const start = (row.start + k) * line.length;
      for (let x = 0; x < line.length; x++) line[x] += f32(weight * data[start + x]);
    });
    for (const column of columns)
      for (let channel = 0; channel < 3; channel++) {
        if (!row || !column) {
          image[place++] = background[channel];
          continue;
        }
        let sum = 0;
        column.weights.forEach((weight, k) => {
          sum = f32(sum + f32(weight * line[(column.start + k) * 4 + channel]));
        });
        image[place++] = sum; // rounds half to even, as the original does
      }
  }
  return image;
}

/** A side before it is cropped or padded to `size`, as `EvalTransform.resized` computes it. */
function resizedSide(side, size, { height, width, image_size, resize_shorter, pad }) {
  if (resize_shorter === null && !pad) return size;
  const by = (target, whole) => Math.floor(side * target / whole);
  const bounds = [by(image_size[0], height), by(image_size[1], width)];
  if (pad) return Math.max(Math.min(...bounds), 1);
  return Math.max(by(resize_shorter, Math.min(height, width)), ...bounds);
}

/** Of each of `size` pixels: of which pixels of a side it is the average, and their weights; or
 * undefined, in a margin. */
function averages(side, resized, size, corner, { interpolation, antialias }) {
  const { radius, at } = KERNELS[interpolation];
  const step = f32(1 / f32(resized / side));
  const offset = f32(step * corner);
  const stretch = antialias ? Math.max(step, 1) : 1;
  const within = (position) => Math.min(Math.max(position, 0), side - 1);
  return Array.from({ length: size }, (_, number) => {
    if (number < -corner || number >= resized - corner) return undefined;
    const center = f32(f32((number + 0.5) * step) + offset);
    const start = within(Math.ceil(f32(f32(center - radius * stretch) - 0.5)));
    const end = within(Math.floor(f32(f32(center + radius * stretch) - 0.5)));
    const weights = new Float32Array(end - start + 1);
    let sum = 0;
    for (let k = 0; k < weights.length; k++) {
      const distance = f32(f32(start + k + 0.5) - center);
      weights[k] = at(Math.abs(f32(distance * f32(1 / stretch))));
      sum = f32(sum + weights[k]);
    }
    return { start, weights: weights.map((weight) => weight * f32(1 / sum)) };
  });
}

function polynomial(x, ...factors) {
  return factors.reduce((sum, factor) => f32(f32(sum * x) + factor), 0);
}

function toEven(number) {
  const up = Math.round(number);
  return up - number === 0.5 && up % 2 ? up - 1 : up;
}
