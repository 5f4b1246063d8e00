// The reverse process, the same update as src/ddpm/diffusion/sample.py: from pure noise to an image, step by step.

// The cumulative product of the alphas at t = 0..T-1, for betas that rise linearly (Ho et al. 2020, section 4).
export function alphasCumprod({ timesteps, beta_start, beta_end }) {
  const table = new Float64Array(timesteps);
  let product = 1;
  for (let t = 0; t < timesteps; t++) {
    const beta = beta_start + ((beta_end - beta_start) * t) / Math.max(timesteps - 1, 1);
    product *= 1 - beta;
    table[t] = product;
  }
  return table;
}

// `steps` of the timesteps, descending from T-1 to 0 by equal steps of the log signal-to-noise ratio, each at the nearest
// timestep that is still free.
export function spacedTimesteps(table, steps) {
  const last = table.length - 1;
  const ratios = Array.from(table, logSNR);
  const wanted = (share) => {
    const ratio = ratios[last] + (ratios[0] - ratios[last]) * share;
    return ratios.reduce((nearest, each, t) => (Math.abs(each - ratio) < Math.abs(ratios[nearest] - ratio) ? t : nearest), 0);
  };
  const chosen = [];
  let free = last;
  for (let i = 0; i < steps; i++) {
    chosen.push(Math.max(Math.min(wanted(i / Math.max(steps - 1, 1)), free), steps - 1 - i)); // later ones need a place below
    free = chosen[i] - 1;
  }
  return chosen;
}

export function logSNR(alphaBar) {
  return Math.log(alphaBar / (1 - alphaBar));
}

// One step for each evaluation of predictNoise(x_t, t): the input of the network, and its estimate of the clean image.
// With abar the cumulative product of the alphas at t, and abar' the one at the next timestep,
//     x_prev = sqrt(abar') x_0 + sqrt(1 - abar' - s^2) eps + s z        (Song et al. 2021, eq. 12),
// where s^2 is eta^2 times the posterior variance: eta 0 is deterministic, eta 1 the process of Ho et al. 2020. The
// second order draws a line through the last two guesses, to the middle of the step (DPM-Solver++, Lu et al. 2022).
export async function* sampleLoop(predictNoise, table, timesteps, noise, { eta = 0, secondOrder = false } = {}) {
  let x = noise();
  let before = null; // alpha_bar and the guess of the step before
  for (let i = 0; i < timesteps.length; i++) {
    const t = timesteps[i];
    const last = i === timesteps.length - 1;
    const abar = table[t];
    const abarPrev = last ? 1 : table[timesteps[i + 1]];
    const predNoise = await predictNoise(x, t);
    const guess = predNoise.map((eps, j) => clip((x[j] - Math.sqrt(1 - abar) * eps) / Math.sqrt(abar)));
    const reach = secondOrder && before && !last
      ? (logSNR(abarPrev) - logSNR(abar)) / 2 / (logSNR(abar) - logSNR(before.abar)) : 0;
    const target = reach ? guess.map((x0, j) => x0 + reach * (x0 - before.guess[j])) : guess;
    const variance = (eta ** 2 * (1 - abar / abarPrev) * (1 - abarPrev)) / (1 - abar);
    const rest = Math.max(1 - abarPrev - variance, 0); // rounding may leave less than nothing
    const z = variance > 0 && !last ? noise() : null;
    const next = target.map((x0, j) => {
      const eps = (x[j] - Math.sqrt(abar) * x0) / Math.sqrt(1 - abar); // the noise that the target implies
      return Math.sqrt(abarPrev) * x0 + Math.sqrt(rest) * eps + (z ? Math.sqrt(variance) * z[j] : 0);
    });
    before = { abar, guess };
    yield { t, x, guess, next };
    x = next;
  }
}

const clip = (value) => Math.min(Math.max(value, -1), 1);
