// The noise of a seed: torch's, so that a variation is the same here and in the library.

/** Mersenne Twister (Matsumoto and Nishimura 1998): whole numbers of 32 bits. */
function* twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed % 2 ** 32;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (;;) {
    for (let i = 0; i < 624; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    for (let y of state) {
      y ^= y >>> 11;
      y ^= (y << 7) & 0x9d2c5680;
      y ^= (y << 15) & 0xefc60000;
      yield (y ^ (y >>> 18)) >>> 0;
    }
  }
}

/** `torch.randn(count, generator=torch.Generator().manual_seed(seed))` to 1e-6; a multiple of 16 numbers. */
export function noise(seed, count) {
  const values = new Float32Array(count), random = twister(seed);
  for (let i = 0; i < count; i++) values[i] = (random.next().value & 0xffffff) / 2 ** 24;
  for (let i = 0; i < count; i += 16) {
    for (let j = i; j < i + 8; j++) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[j])), angle = 2 * Math.PI * values[j + 8];
      values[j] = radius * Math.cos(angle);
      values[j + 8] = radius * Math.sin(angle);
    }
  }
  return values;
}
