// The files that the page loads: safetensors, with weights as 16-bit floats, one of them deflated.

export const half = bits => { // sign, 5 bits of exponent, 10 of fraction
  const exponent = bits >> 10 & 31, fraction = bits & 1023;
  return (bits & 0x8000 ? -1 : 1) * (exponent ? 2**(exponent - 25) * (1024 + fraction) : 2**-24 * fraction);
};

export function readTensors(buffer) {
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: info, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const tensors = {};
  for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(entries)) {
    const bytes = buffer.slice(8 + size + start, 8 + size + end);
    tensors[name] = dtype === 'F16' ? Float64Array.from(new Uint16Array(bytes), half) : new Uint8Array(bytes);
  }
  return { tensors, info };
}

export function networkFrom(tensors) { // a copy, with the ReLU that it was trained with
  const layers = Object.keys(tensors).filter(name => name.endsWith('.w')).map(name => name.slice(0, -2)).sort();
  return { activation: 'relu', layers: layers.map(k => ({ w: tensors[`${k}.w`].slice(), b: tensors[`${k}.b`].slice() })) };
}

async function load(name) {
  const file = new URL(name, import.meta.url), response = await fetch(file);
  if (!response.ok) throw new Error(`${file.pathname}: the server says ${response.status}`);
  return response;
}

export const loadNetwork = async () => readTensors(await (await load('network.safetensors')).arrayBuffer());

// The packed digits: { x, y, n, mean, std }, bytes row after row; the first n to learn from, the rest held out
export async function loadDigits() {
  const { body } = await load('digits.safetensors.zlib'), inflated = body.pipeThrough(new DecompressionStream('deflate'));
  const { tensors, info } = readTensors(await new Response(inflated).arrayBuffer());
  return { x: tensors.x, y: tensors.y, n: Number(info.train), mean: Number(info.mean), std: Number(info.std) };
}
