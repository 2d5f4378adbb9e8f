//! Contents of the benchmark's files, each a pure function of a seed.

use std::io::{Result, Write};

/// What a file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Prose,
    Table,
    /// Cannot be compressed, like a picture.
    Noise,
    /// 32-bit floats, normally distributed, as trained weights are.
    Model,
    Log,
}

const BLOCK_BYTES: usize = 64 << 10;
const WORDS: [&str; 24] = [
    "market", "order", "the", "of", "and", "price", "signal", "window", "feature", "service", "a", "in",
    "request", "balance", "to", "model", "risk", "account", "event", "for", "trend", "is", "session", "with",
];
const PAGES: [&str; 6] = ["/", "/predict", "/predictions", "/healthz", "/account/orders", "/static/app.js"];

impl Kind {
    /// The kinds of small files, each a fourth.
    pub(super) const SMALL: [Self; 4] = [Self::Json, Self::Prose, Self::Table, Self::Noise];

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Prose => "txt",
            Self::Table => "csv",
            Self::Noise => "jpg",
            Self::Model => "f32",
            Self::Log => "log",
        }
    }

    /// Writes exactly `bytes` bytes.
    pub(super) fn write(self, random: &mut Random, bytes: u64, to: &mut impl Write) -> Result<()> {
        let mut left = bytes;
        let mut block = Vec::with_capacity(BLOCK_BYTES + 256);
        let mut line = 0;
        while left > 0 {
            block.clear();
            let wanted = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            while block.len() < wanted {
                self.append(random, line, &mut block)?;
                line += 1;
            }
            to.write_all(&block[..wanted])?;
            left -= wanted as u64;
        }
        Ok(())
    }

    /// Appends one record.
    fn append(self, random: &mut Random, line: u64, to: &mut Vec<u8>) -> Result<()> {
        let word = |random: &mut Random| WORDS[random.below(WORDS.len())];
        match self {
            Self::Json => {
                let (name, state, id) = (word(random), word(random), random.below(100_000_000));
                writeln!(
                    to,
                    r#"{{"id":{id},"name":"{name}","state":"{state}","value":{:.6}}},"#,
                    random.unit()
                )
            }
            Self::Prose => {
                for _ in 0..3 + random.below(12) {
                    to.extend_from_slice(word(random).as_bytes());
                    to.push(b' ');
                }
                writeln!(to, "{}.", random.below(1000))
            }
            Self::Table => {
                writeln!(to, "{line},{:.4},{:.4},{}", random.unit(), random.unit() * 1e3, random.below(5000))
            }
            Self::Noise => {
                to.extend_from_slice(&random.next().to_le_bytes());
                Ok(())
            }
            Self::Model => {
                for weight in random.normal_pair() {
                    to.extend_from_slice(&(weight * 0.02).to_le_bytes());
                }
                Ok(())
            }
            Self::Log => {
                let (seconds, host, page) = (line / 40, random.below(4000), PAGES[random.below(PAGES.len())]);
                let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
                writeln!(
                    to,
                    "10.0.{}.{} - - [03/Mar/2026:{h:02}:{m:02}:{s:02} +0000] \"GET {page}?id={} HTTP/1.1\" 200 {} \"-\" \"client/{}.{}\"",
                    host / 256,
                    host % 256,
                    random.below(1_000_000),
                    random.below(20_000),
                    host % 9,
                    host % 7
                )
            }
        }
    }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, not including, `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    /// Two values with mean 0 and deviation 1 (Box and Muller).
    #[allow(clippy::cast_possible_truncation)]
    fn normal_pair(&mut self) -> [f32; 2] {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt() as f32;
        let (sin, cos) = (std::f32::consts::TAU * self.unit() as f32).sin_cos();
        [radius * cos, radius * sin]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_exact_and_contents_repeat() {
        for kind in [Kind::Json, Kind::Prose, Kind::Table, Kind::Noise, Kind::Model, Kind::Log] {
            let make = |seed| {
                let mut bytes = Vec::new();
                kind.write(&mut Random::new(seed), 100_003, &mut bytes).unwrap();
                bytes
            };
            assert_eq!(make(7).len(), 100_003, "{kind:?}");
            assert!(make(7) == make(7), "{kind:?}");
            assert!(make(7) != make(8), "{kind:?}");
        }
    }

    #[test]
    fn weights_are_normally_distributed() {
        let mut random = Random::new(3);
        let values: Vec<f32> = (0..50_000).flat_map(|_| random.normal_pair()).collect();
        let share = |limit: f32| values.iter().filter(|value| value.abs() < limit).count();
        // Of 100,000: 68.27 % within one deviation, 95.45 % within two.
        assert!((67_700..68_800).contains(&share(1.0)), "{}", share(1.0));
        assert!((95_100..95_800).contains(&share(2.0)), "{}", share(2.0));
    }
}
