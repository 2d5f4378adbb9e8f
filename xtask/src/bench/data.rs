//! The benchmark's data: made once under `target/bench`, the same bytes on every machine.
//!
//! Half of the bytes are small files (JSON, prose, tables, and one in four that cannot be compressed), a third are
//! models (normally distributed 32-bit floats), the rest are logs. Beside the tree lies one big file of alternating
//! stretches of floats and log lines. 1 % of the files can be changed, and changed back.

mod contents;

use crate::sh::{self, Result};
use contents::{Kind, Random};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How much data, in how many files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) bytes: u64,
    /// The number of small files.
    pub(super) files: u64,
    pub(super) per_folder: u64,
    pub(super) big_bytes: u64,
}

/// Where the data are.
pub(super) struct Trees {
    pub(super) tree: PathBuf,
    pub(super) big: PathBuf,
    /// There while the tree is changed; a run that finds it puts the tree right first.
    changed: PathBuf,
}

/// One file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    path: String,
    kind: Kind,
    bytes: u64,
    seed: u64,
}

const MODEL_BYTES: u64 = 128 << 20;
const LOG_BYTES: u64 = 8 << 20;
const STRETCH_BYTES: u64 = 16 << 20;
/// One in so many files is changed.
const CHANGED_ONE_IN: usize = 100;

/// Makes what is missing, and reads the tree once.
pub(super) fn ensure(folder: &Path, shape: &Shape) -> Result<Trees> {
    let name = format!("data-{}-{}-{}-{}", shape.bytes, shape.files, shape.per_folder, shape.big_bytes);
    let folder = folder.join(name);
    let trees = Trees { tree: folder.join("tree"), big: folder.join("big"), changed: folder.join("changed") };
    let complete = folder.join("complete");
    if !complete.is_file() {
        println!("bench: making {} MiB in {}", (shape.bytes + shape.big_bytes) >> 20, folder.display());
        sh::remove_dir(&folder)?;
        for spec in specs(shape) {
            spec.write(&trees.tree, 0)?;
        }
        write_big(&trees.big, shape.big_bytes)?;
        sh::write(&complete, "")?;
    }
    if trees.changed.is_file() {
        revert(&trees, shape)?;
    }
    let (files, bytes) = census(&trees.tree)?;
    println!("bench: {files} files, {} MiB, and one of {} MiB", bytes >> 20, shape.big_bytes >> 20);
    let mut cat = std::process::Command::new("sh");
    cat.args(["-c", r#"find "$1" "$2" -type f -print0 | xargs -0 cat > /dev/null"#, "sh"]);
    sh::run(cat.arg(&trees.tree).arg(&trees.big))?;
    Ok(trees)
}

/// The number of files in `folder` and below, and the sum of their lengths.
pub(super) fn census(folder: &Path) -> Result<(u64, u64)> {
    let fail = |error: std::io::Error| format!("cannot read `{}`: {error}", folder.display());
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let metadata = entry.metadata().map_err(fail)?;
        if metadata.is_dir() {
            let (files, bytes) = census(&entry.path())?;
            sum = (sum.0 + files, sum.1 + bytes);
        } else {
            sum = (sum.0 + 1, sum.1 + metadata.len());
        }
    }
    Ok(sum)
}

/// Changes 1 % of the files: small ones are written anew, a model gets new weights in 1 MiB, a log grows by 64 KiB.
pub(super) fn change(trees: &Trees, shape: &Shape) -> Result {
    sh::write(&trees.changed, "")?;
    for spec in touched(shape) {
        let path = trees.tree.join(&spec.path);
        match spec.kind {
            Kind::Model => patch(&path, spec.bytes / 2, Kind::Model, 1 << 20)?,
            Kind::Log => patch(&path, spec.bytes, Kind::Log, 64 << 10)?,
            _ => spec.write(&trees.tree, 1)?,
        }
    }
    Ok(())
}

/// Undoes [`change`].
pub(super) fn revert(trees: &Trees, shape: &Shape) -> Result {
    for spec in touched(shape) {
        spec.write(&trees.tree, 0)?;
    }
    fs::remove_file(&trees.changed)
        .map_err(|error| format!("cannot remove the mark of a changed tree: {error}"))
}

/// The files that change: one in a hundred small ones, and the first model and the first log.
fn touched(shape: &Shape) -> Vec<Spec> {
    let specs = specs(shape);
    let first = |kind| specs.iter().find(|spec| spec.kind == kind).cloned();
    let small = specs.iter().filter(|spec| !matches!(spec.kind, Kind::Model | Kind::Log));
    let mut touched: Vec<Spec> = small.step_by(CHANGED_ONE_IN).cloned().collect();
    touched.extend([first(Kind::Model), first(Kind::Log)].into_iter().flatten());
    touched
}

/// Every file of the tree.
fn specs(shape: &Shape) -> Vec<Spec> {
    let mut random = Random::new(1);
    let mut specs = Vec::new();
    let mean_bytes = shape.bytes / 2 / shape.files.max(1);
    for index in 0..shape.files {
        let kind = Kind::SMALL[usize::try_from(index % 4).unwrap_or(0)];
        let path = format!("small/{:05}/{index:07}.{}", index / shape.per_folder, kind.extension());
        // Many small, few large: up to four times the mean, which is kept.
        let skew = random.unit().powi(3) * 4.0;
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = (mean_bytes as f64 * skew) as u64 + 1;
        specs.push(Spec { path, kind, bytes, seed: random.next() });
    }
    let mut split = |kind: Kind, folder: &str, total: u64, each: u64| {
        for index in 0..total.div_ceil(each) {
            let path = format!("{folder}/{index:04}.{}", kind.extension());
            let bytes = each.min(total - index * each);
            specs.push(Spec { path, kind, bytes, seed: random.next() });
        }
    };
    split(Kind::Model, "models", shape.bytes / 3, MODEL_BYTES);
    split(Kind::Log, "logs", shape.bytes - shape.bytes / 2 - shape.bytes / 3, LOG_BYTES);
    specs
}

impl Spec {
    /// Writes the file; another `variation` gives other contents of the same length.
    fn write(&self, root: &Path, variation: u64) -> Result {
        let path = root.join(&self.path);
        if let Some(folder) = path.parent() {
            sh::make_dir(folder)?;
        }
        let write = || {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            self.kind.write(&mut Random::new(self.seed ^ variation), self.bytes, &mut file)?;
            file.flush()
        };
        write().map_err(|error| format!("cannot write `{}`: {error}", path.display()))
    }
}

/// Writes `bytes` of new contents at `at`.
fn patch(path: &Path, at: u64, kind: Kind, bytes: u64) -> Result {
    let write = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::Start(at))?;
        kind.write(&mut Random::new(at ^ bytes), bytes, &mut file)
    };
    write().map_err(|error| format!("cannot change `{}`: {error}", path.display()))
}

fn write_big(folder: &Path, bytes: u64) -> Result {
    sh::make_dir(folder)?;
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join("big.img"))?);
        let mut random = Random::new(2);
        let mut left = bytes;
        for kind in [Kind::Model, Kind::Log].into_iter().cycle() {
            let stretch = left.min(STRETCH_BYTES);
            kind.write(&mut random, stretch, &mut file)?;
            left -= stretch;
            if left == 0 {
                break;
            }
        }
        file.flush()
    };
    write().map_err(|error| format!("cannot write the big file: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { bytes: 6 << 20, files: 300, per_folder: 50, big_bytes: (16 << 20) + 5 };

    #[test]
    fn the_bytes_are_divided_as_said() {
        let shape = Shape { bytes: 3 << 30, files: 50_000, ..SHAPE };
        let sum = |is: fn(Kind) -> bool| {
            specs(&shape).iter().filter(|spec| is(spec.kind)).map(|spec| spec.bytes).sum::<u64>() >> 20
        };
        assert_eq!(sum(|kind| kind == Kind::Model), 1024);
        assert_eq!(sum(|kind| kind == Kind::Log), 512);
        let small = sum(|kind| !matches!(kind, Kind::Model | Kind::Log));
        assert!((1500..1580).contains(&small), "{small} MiB in small files");
        assert!(specs(&shape).len() > 50_000);
    }

    #[test]
    fn one_percent_changes_and_changes_back() {
        let dir = tempfile::tempdir().unwrap();
        let trees = ensure(dir.path(), &SHAPE).unwrap();
        let hashes = |of: &Trees| {
            specs(&SHAPE).iter().map(|spec| fs::read(of.tree.join(&spec.path)).unwrap()).collect::<Vec<_>>()
        };
        let before = hashes(&trees);
        change(&trees, &SHAPE).unwrap();
        let changed = hashes(&trees).iter().zip(&before).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 3 + 1 + 1, "three small files, a model, a log");
        // The next run finds the mark and puts the tree right.
        let trees = ensure(dir.path(), &SHAPE).unwrap();
        assert!(hashes(&trees) == before);
        assert!(!trees.changed.exists());
    }

    #[test]
    fn the_census_counts_files_and_bytes_below() {
        let dir = tempfile::tempdir().unwrap();
        let trees = ensure(dir.path(), &SHAPE).unwrap();
        assert_eq!(census(&trees.big).unwrap(), (1, SHAPE.big_bytes));
        let wanted = specs(&SHAPE);
        let bytes = wanted.iter().map(|spec| spec.bytes).sum();
        assert_eq!(census(&trees.tree).unwrap(), (wanted.len() as u64, bytes));
    }
}
