// The page: every change of the form samples an image, and the slider shows its steps.
import { listModels, load, sample } from "./network.js";
import { gaussianNoise } from "./noise.js";

const FRAME = 16; // milliseconds after which the browser may paint
const PLAYING = 3000; // milliseconds, for all steps
const form = document.querySelector("form");
const field = form.elements;
const slider = document.querySelector("#step");
const status = document.querySelector("#status");
const caption = document.querySelector("#caption");
const [noisy, clean] = document.querySelectorAll("canvas");
let models = [];
let frames = []; // the steps of the current image
let begun = 0; // how often sampling began: an older run stops when this changes

async function main() {
  models = await listModels();
  models.forEach((model, i) => field.model.add(new Option(model.title, i)));
  fitForm();
  form.addEventListener("input", (event) => {
    if (event.target === field.model) fitForm();
    resample();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    field.seed.value = Math.floor(Math.random() * 2 ** 32);
    resample();
  });
  slider.addEventListener("input", () => show(Number(slider.value)));
  document.querySelector("#play").addEventListener("click", play);
  resample();
}

// Offer in the form what the model can do.
function fitForm() {
  const model = models[field.model.value];
  const label = field.label.value;
  field.label.replaceChildren(...model.known.map((known) => new Option(model.classes[known], known)));
  if (model.known.map(String).includes(label)) field.label.value = label;
  field.label.disabled = !model.class_conditional;
  const distilled = model.timesteps.length > 0;
  field.steps.max = Math.min(100, model.schedule.timesteps);
  field.steps.disabled = field.sampler.disabled = distilled;
  field.guidance.disabled = !model.guide_file;
}

// Sample an image by the form, and show each step at once.
async function resample() {
  const mine = ++begun;
  const model = models[field.model.value];
  const [sampler, eta] = field.sampler.value.split(" ");
  const choice = {
    label: Number(field.label.value),
    steps: Number(field.steps.value),
    guidance: Number(field.guidance.value),
    sampler,
    eta: Number(eta),
  };
  field.shown_steps.value = model.timesteps.length || choice.steps;
  field.shown_guidance.value = model.guide_file ? choice.guidance.toFixed(1) : "none";
  try {
    status.value = "Loading the model …";
    await load(model.file);
    if (choice.guidance !== 1 && model.guide_file) await load(model.guide_file);
    if (mine !== begun) return;
    const noise = gaussianNoise(Number(field.seed.value), model.shape.reduce((a, b) => a * b));
    const steps = [];
    const began = performance.now();
    let painted = began;
    for await (const step of sample(model, choice, noise)) {
      if (mine !== begun) return;
      steps.push(step);
      frames = steps;
      slider.max = steps.length - 1;
      show(steps.length - 1);
      if (performance.now() - painted > FRAME) {
        await new Promise((resolve) => setTimeout(resolve));
        painted = performance.now();
      }
    }
    status.value = `${steps.length} steps in ${Math.round(performance.now() - began)} ms`;
  } catch (error) {
    if (mine === begun) status.value = `Sampling failed: ${error.message}`;
    throw error;
  }
}

// Show all steps of the image again, slowly.
async function play() {
  const [mine, shown] = [begun, frames];
  for (let i = 0; i < shown.length; i++) {
    if (mine !== begun) return;
    show(i);
    await new Promise((resolve) => setTimeout(resolve, PLAYING / shown.length));
  }
}

// Show one step: the input of the network, and its estimate of the clean image.
function show(index) {
  const { shape } = models[field.model.value];
  const { t, x, guess } = frames[index];
  paint(noisy, x, shape);
  paint(clean, guess, shape);
  slider.value = index;
  caption.value = `step ${index + 1} of ${frames.length}, t = ${t}`;
}

// Paint values from -1 to 1, C x H x W, as levels from black to white.
function paint(canvas, values, [channels, height, width]) {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  const area = height * width;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round((values[(c % channels) * area + i] + 1) * 127.5);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

main().catch((error) => { status.value = `The page did not start: ${error.message}`; });
