//! A small generator of random numbers, the same on every machine and in every version: `SplitMix64`.
//!
//! Not for secrets.

use std::f32::consts::TAU;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
    /// Normal numbers come in pairs; the second waits here.
    spare: Option<f32>,
}

impl Random {
    /// The stream of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, spare: None }
    }

    /// The stream of this seed for the part `number` of the work, so that parts can be made in any order.
    pub(crate) fn part(seed: u64, number: u64) -> Self {
        let mut mixed = Self::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        Self::new(mixed.next())
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `bound - 1`, evenly (within 2^-32 for the small bounds used here); 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        // The product's upper half is below `bound`, which fits.
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }

    /// One of `choices`, which must not be empty.
    pub(crate) fn choose<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(u32::try_from(choices.len()).unwrap_or(u32::MAX)) as usize]
    }

    /// A number with the standard normal distribution (Box–Muller), with all 24 bits of a float's mantissa.
    #[expect(clippy::cast_precision_loss, reason = "24 bits are exact in a float")]
    pub(crate) fn normal(&mut self) -> f32 {
        const SCALE: f32 = 1.0 / (1 << 24) as f32;
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let bits = self.next();
        // 1 to 2^24, so that the logarithm is finite.
        let radius = (-2.0 * (((bits >> 40) + 1) as f32 * SCALE).ln()).sqrt();
        let (sine, cosine) = (((bits & 0xff_ffff) as f32) * SCALE * TAU).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // The first numbers of SplitMix64 for seed 0, as in its reference implementation.
        let mut random = Random::new(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = Random::new(5);
        let numbers: Vec<f64> = (0..100_000).map(|_| f64::from(random.normal())).collect();
        let mean = numbers.iter().sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        assert!(numbers.iter().all(|number| number.is_finite()));
    }

    #[test]
    fn bounded_numbers_reach_both_ends_and_no_further() {
        let mut random = Random::new(1);
        let numbers: std::collections::BTreeSet<u32> = (0..1000).map(|_| random.below(5)).collect();
        assert_eq!(numbers.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(random.below(0), 0);
    }
}
