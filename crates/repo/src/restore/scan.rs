//! What the target has already: files are compared chunk by chunk, so that only what differs is read and written.

use super::files::finish;
use super::layout::Kind;
use super::run::{Run, add, state};
use super::target::{Directories, create_file, open_file, stat};
use retoma_core::Result;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Files, or chunks of a large one, that a thread takes at once.
const BATCH: u32 = 64;
/// Chunks of one file that are read and hashed together.
const GROUP_BYTES: u64 = 4 << 20;
/// From this size on, all threads look at one file together.
const SHARED_BYTES: u64 = 64 << 20;

/// Looks at every file: makes empty ones, finishes those that are complete already.
///
/// # Errors
/// `Cancelled`.
pub(super) fn scan(run: &Run<'_>) -> Result<()> {
    let next = AtomicU32::new(0);
    let end = run.plan.layout.len();
    let work = || {
        let (mut directories, mut buffer) = (run.directories(), Vec::new());
        while !run.is_stopping() {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= end {
                break;
            }
            for number in first..end.min(first + BATCH) {
                if run.plan.layout.get(number).kind == Kind::File && !run.has(number, state::FAILED) {
                    look(run, &mut directories, &mut buffer, number);
                }
            }
        }
    };
    in_threads(run, work);
    run.check_cancelled()
}

/// Has all workers do `work`, this thread among them.
fn in_threads(run: &Run<'_>, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for worker in 1..super::pipeline::workers(run) {
            let builder = std::thread::Builder::new().name(format!("restore-scan-{worker}"));
            // Without more threads this one does it all.
            builder.spawn_scoped(scope, &work).ok();
        }
        work();
    });
}

fn look(run: &Run<'_>, directories: &mut Directories<'_>, buffer: &mut Vec<u8>, number: u32) {
    let layout = &run.plan.layout;
    let fresh = run.has(layout.get(number).parent, state::FRESH);
    let empty = layout.chunks(number).is_empty();
    let done = match (fresh, empty) {
        (true, false) => return,
        (true, true) => make_empty(run, directories, number),
        (false, _) => match compare(run, directories, buffer, number) {
            Ok(false) if empty => make_empty(run, directories, number),
            other => other.map(|_| ()),
        },
    };
    if let Err(errno) = done {
        run.fail_io(number, errno);
    }
}

fn make_empty(run: &Run<'_>, directories: &mut Directories<'_>, number: u32) -> rustix::io::Result<()> {
    let at = directories.around(number)?;
    let file = create_file(&*at, run.plan.layout.name(number), run.clear())?;
    run.set(number, state::BEGUN);
    finish(run, number, &file, None);
    Ok(())
}

/// Compares a file with what is in the target. `false` when there is nothing that could be changed in place.
fn compare(
    run: &Run<'_>,
    directories: &mut Directories<'_>,
    buffer: &mut Vec<u8>,
    number: u32,
) -> rustix::io::Result<bool> {
    let layout = &run.plan.layout;
    let at = directories.around(number)?;
    match stat(&*at, layout.name(number)) {
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error),
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => return Ok(false),
        Ok(_) => {}
    }
    // Whatever can't be opened (a mode that forbids it, a program that runs) is replaced.
    let Ok((file, found)) = open_file(&*at, layout.name(number)) else { return Ok(false) };
    if !all_names_are_ours(run, directories, number, &found) {
        return Ok(false);
    }
    run.set(number, state::EXISTING);
    let (size, entry) = (layout.size_bytes(number), layout.get(number));
    let size_now = u64::try_from(found.st_size).unwrap_or(0);
    let trusted = run.plan.options.trust_mtime
        && size_now == size
        && (found.st_mtime, i64::try_from(found.st_mtime_nsec).unwrap_or(-1)) == entry.mtime();
    let known = Known { run, file: &file, number, bytes: size_now, trusted };
    let alone = (size_now >= SHARED_BYTES && !trusted).then(|| run.together.try_lock().ok()).flatten();
    let same = match alone {
        Some(_alone) => known.look_together()?,
        None => known.look(layout.chunks(number), buffer)?,
    };
    if size_now != size {
        rustix::fs::ftruncate(&file, size)?;
        run.set(number, state::BEGUN);
    }
    if same {
        finish(run, number, &file, Some(&rustix::fs::fstat(&file)?));
    }
    Ok(true)
}

/// A file that is there already.
struct Known<'a, 'r> {
    run: &'a Run<'r>,
    file: &'a OwnedFd,
    number: u32,
    /// Its size now.
    bytes: u64,
    /// Whether its contents are taken to be right.
    trusted: bool,
}

impl Known<'_, '_> {
    /// Marks those of the chunks that are there. Whether all are.
    fn look(&self, chunks: Range<u32>, buffer: &mut Vec<u8>) -> rustix::io::Result<bool> {
        let (run, layout) = (self.run, &self.run.plan.layout);
        let is_first = chunks.start == layout.chunks(self.number).start;
        let mut start = if is_first { 0 } else { layout.chunk(chunks.start - 1).end };
        let mut all = true;
        let mut rest = chunks;
        while !rest.is_empty() {
            // At least one; the others as long as they fit.
            let fits = |chunk: &u32| *chunk == rest.start || layout.chunk(*chunk).end <= start + GROUP_BYTES;
            let group = rest.start..rest.clone().take_while(fits).last().map_or(rest.end, |last| last + 1);
            let same = if self.trusted { None } else { Some(self.has(group.clone(), start, buffer)?) };
            for (at, chunk) in group.clone().enumerate() {
                let end = layout.chunk(chunk).end;
                if same.as_ref().is_none_or(|same| same[at]) {
                    run.set_reused(chunk);
                    add(&run.counts.reused, end - start);
                    run.progress.add_bytes(end - start);
                } else {
                    all = false;
                }
                start = end;
            }
            rest.start = group.end;
        }
        Ok(all)
    }

    /// Which of the chunks are in the file; the first one begins at `start`.
    fn has(&self, chunks: Range<u32>, start: u64, buffer: &mut Vec<u8>) -> rustix::io::Result<Vec<bool>> {
        let layout = &self.run.plan.layout;
        let (mut at, mut filled, mut read) = (start, 0, Vec::with_capacity(chunks.len()));
        for chunk in chunks.clone() {
            let end = layout.chunk(chunk).end;
            let range = if end <= self.bytes { self.read(at..end, filled, buffer)? } else { None };
            filled = range.as_ref().map_or(filled, |range| range.end);
            read.push(range);
            at = end;
        }
        let plaintexts: Vec<&[u8]> = read.iter().flatten().map(|range| &buffer[range.clone()]).collect();
        let mut hashes = retoma_sha256::digests(&plaintexts).into_iter();
        let same = |(chunk, read): (u32, &Option<_>)| {
            read.is_some() && hashes.next() == Some(layout.chunk(chunk).id.0)
        };
        Ok(chunks.zip(&read).map(same).collect())
    }

    /// Reads these bytes of the file to `at` of the buffer, which grows when it must; where they are then. `None` where the file does
    /// not have them all.
    fn read(
        &self,
        bytes: Range<u64>,
        at: usize,
        buffer: &mut Vec<u8>,
    ) -> rustix::io::Result<Option<Range<usize>>> {
        let Ok(length) = usize::try_from(bytes.end - bytes.start) else { return Ok(None) };
        buffer.resize(buffer.len().max(at + length), 0);
        let mut filled = 0;
        while filled < length {
            let rest = &mut buffer[at + filled..at + length];
            match rustix::io::pread(self.file, rest, bytes.start + filled as u64) {
                // It ends before, or a sector is bad, which is overwritten.
                Ok(0) | Err(Errno::IO) => return Ok(None),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(at..at + length))
    }

    /// As [`Known::look`] for all chunks, by all threads: most bytes may lie in one file.
    fn look_together(&self) -> rustix::io::Result<bool> {
        let chunks = self.run.plan.layout.chunks(self.number);
        let (next, all) = (AtomicU32::new(chunks.start), AtomicBool::new(true));
        let work = || -> rustix::io::Result<()> {
            let mut buffer = Vec::new();
            while !self.run.is_stopping() {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= chunks.end {
                    break;
                }
                let same = self.look(first..chunks.end.min(first + BATCH), &mut buffer)?;
                all.fetch_and(same, Ordering::Relaxed);
            }
            Ok(())
        };
        let failed = std::sync::Mutex::new(None);
        in_threads(self.run, || {
            if let Err(errno) = work() {
                *super::run::lock(&failed) = Some(errno);
            }
        });
        match super::run::into_inner(failed) {
            Some(errno) => Err(errno),
            None => Ok(all.into_inner() && !self.run.is_stopping()),
        }
    }
}

/// Whether every name of the file is one that the plan has for it, so that changing it changes nothing else.
fn all_names_are_ours(run: &Run<'_>, directories: &mut Directories<'_>, number: u32, found: &Stat) -> bool {
    let layout = &run.plan.layout;
    let mut names = 1u64;
    for link in layout.links(number) {
        let Ok(at) = directories.around(*link) else { continue };
        let same = |other: Stat| (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino);
        if stat(&*at, layout.name(*link)).is_ok_and(same) {
            names += 1;
        }
    }
    found.st_nlink == names
}
