// Standard normal numbers from a seed. They are not Python's: the same seed draws another image there.

// Returns a function that gives the next Float32Array of `size` numbers.
export function gaussianNoise(seed, size) {
  const uniform = splitmix32(seed);
  return () => Float32Array.from({ length: size }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())); // Box and Muller 1958
}

// Uniform numbers in [0, 1): a counter that steps by the golden ratio, each value scrambled by MurmurHash3's finaliser.
function splitmix32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
}
