// The network, run by ONNX Runtime Web, and its guidance.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { alphasCumprod, logSNR, sampleLoop, spacedTimesteps } from "./sampler.js";

ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that few hosts of static pages send

const GUIDANCE_INTERVAL = [-4, 2]; // the log signal-to-noise ratios at which it acts, as in params.yaml
const sessions = new Map();

// List the models that scripts/demo.py exported.
export async function listModels() {
  const response = await fetch(new URL("./models.json", import.meta.url));
  if (!response.ok) throw new Error(`models.json: ${response.status}; python -m scripts.demo writes it`);
  return (await response.json()).models;
}

// Fetch a file of weights, once. Resolves to ONNX Runtime's session.
export function load(file) {
  if (!sessions.has(file)) {
    const url = new URL(`./models/${encodeURIComponent(file)}`, import.meta.url).href;
    const loading = ort.InferenceSession.create(url, { executionProviders: ["wasm"] });
    loading.catch(() => sessions.delete(file)); // so that the next attempt fetches it again
    sessions.set(file, loading);
  }
  return sessions.get(file);
}

// The steps of sampling one image, see sampleLoop. `noise` gives the next Float32Array of C x H x W normal numbers.
// A distilled model has its own timesteps, with fresh noise in each step; it ignores steps, sampler, eta and guidance.
export async function* sample(model, { label, steps, guidance, sampler, eta }, noise) {
  const table = alphasCumprod(model.schedule);
  const distilled = model.timesteps.length > 0;
  const timesteps = distilled ? model.timesteps : spacedTimesteps(table, steps);
  const how = distilled ? { eta: 1 } : { eta, secondOrder: sampler === "dpmpp_2m" };
  const session = await load(model.file);
  const guide = model.guide_file && guidance !== 1 ? await load(model.guide_file) : null;

  async function predictNoise(x, t) {
    const eps = await evaluate(session, model, x, t, label);
    const ratio = logSNR(table[t]);
    if (!guide || ratio < GUIDANCE_INTERVAL[0] || ratio > GUIDANCE_INTERVAL[1]) return eps;
    const worse = await evaluate(guide, model, x, t, label); // away from the estimate of a less trained network
    return eps.map((value, i) => worse[i] + guidance * (value - worse[i]));
  }

  const black = (model.faint + 0.5) / 127.5 - 1; // fainter values become black in the end
  for await (const step of sampleLoop(predictNoise, table, timesteps, noise, how)) {
    if (model.faint && step.t === timesteps.at(-1)) step.next = step.next.map((x) => (x < black ? -1 : x));
    yield step;
  }
}

async function evaluate(session, model, x, t, label) {
  const one = (value) => new ort.Tensor("int64", BigInt64Array.of(BigInt(value)), [1]);
  const inputs = { x_t: new ort.Tensor("float32", x, [1, ...model.shape]), t: one(t) };
  if (model.class_conditional) inputs.label = one(label);
  return (await session.run(inputs)).noise.data;
}
