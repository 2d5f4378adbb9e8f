//! The seeded logs: lines as the service writes them, in the current file and three rotated ones.

use std::fmt::Write;

use retoma_core::Result;

use super::{HISTORY_END_MS, SeedOptions, SeedPart, SeedProgress, Steps};
use crate::config::Layout;
use crate::files::write_atomic;
use crate::random::Random;

const FILES: u64 = 4;
/// The mean time between two lines, in milliseconds.
const PACE_MS: u32 = 250;

/// Writes the logs; gives their size in bytes.
pub(super) fn write(
    layout: &Layout,
    options: &SeedOptions,
    progress: &(dyn Fn(SeedProgress) + Sync),
) -> Result<u64> {
    let each = options.log_bytes / FILES;
    let mut steps = Steps::new(progress, SeedPart::Logs, options.log_bytes);
    let mut written = 0;
    for age in 0..FILES {
        let path = if age == 0 { layout.log() } else { layout.logs().join(format!("marabet.log.{age}")) };
        let text = text(&mut Random::part(options.seed, 200 + age), age, each);
        write_atomic(&path, text.as_bytes())?;
        written += text.len() as u64;
        steps.at(written);
    }
    Ok(written)
}

/// At least `bytes` of lines (none for 0), of the day that is `age` days before the history's end.
fn text(random: &mut Random, age: u64, bytes: u64) -> String {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(bytes.saturating_add(200).min(1 << 30));
    let days = i64::try_from(age).unwrap_or(0) + 1;
    let mut now_ms = HISTORY_END_MS - days * 86_400_000;
    while text.len() < bytes {
        now_ms += i64::from(random.below(2 * PACE_MS));
        let (method, path) = match random.below(10) {
            0 => ("GET", "/healthz".to_owned()),
            1 => ("GET", format!("/predictions/{}", random.below(1_000_000))),
            2 => ("GET", "/predictions".to_owned()),
            _ => ("POST", "/predict".to_owned()),
        };
        let (level, status) = match random.below(200) {
            0 => ("error", 503),
            1..4 => ("warn", 422),
            _ => ("info", 200),
        };
        let time = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let duration_us = 300 + random.below(400) + random.below(20) * random.below(60);
        let line = format_args!(
            "{{\"time\":\"{time:.3}\",\"level\":\"{level}\",\"method\":\"{method}\",\"path\":\"{path}\",\
             \"status\":{status},\"duration_us\":{duration_us}}}\n"
        );
        if text.write_fmt(line).is_err() {
            break;
        }
    }
    text
}
