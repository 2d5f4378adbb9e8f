//! Writing files: chunks of several packs come in any order and from any thread.

use super::layout::Kind;
use super::meta::{self, Object};
use super::run::{Run, add, lock, state};
use super::target::{Directories, create_file, open_file, write_all};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Stat};
use rustix::io::{Errno, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Files that are open because several chunks of them are written.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<Opened>);

#[derive(Debug, Default)]
struct Opened {
    files: HashMap<u32, Arc<OwnedFd>>,
    /// Oldest first.
    order: VecDeque<u32>,
}

/// Open files that are kept.
const KEPT: usize = 128;

impl OpenFiles {
    /// The file, made or opened by whoever comes first.
    fn get(&self, run: &Run<'_>, directories: &mut Directories<'_>, number: u32) -> Result<Arc<OwnedFd>> {
        let mut opened = lock(&self.0);
        if let Some(file) = opened.files.get(&number) {
            return Ok(Arc::clone(file));
        }
        let at = directories.around(number)?;
        let name = run.plan.layout.name(number);
        let file = if run.has(number, state::EXISTING | state::BEGUN) {
            let (file, stat) = open_file(&*at, name)?;
            check_names(run, number, &stat)?;
            file
        } else {
            let file = create_file(&*at, name, run.clear())?;
            run.set(number, state::BEGUN);
            rustix::fs::ftruncate(&file, run.plan.layout.size_bytes(number))?;
            file
        };
        run.set(number, state::BEGUN);
        let file = Arc::new(file);
        opened.files.insert(number, Arc::clone(&file));
        opened.order.push_back(number);
        if opened.order.len() > KEPT
            && let Some(oldest) = opened.order.pop_front()
        {
            opened.files.remove(&oldest);
        }
        Ok(file)
    }

    fn close(&self, number: u32) {
        let mut opened = lock(&self.0);
        if opened.files.remove(&number).is_some() {
            opened.order.retain(|known| *known != number);
        }
    }
}

/// A file with names that the plan doesn't know must not be changed.
fn check_names(run: &Run<'_>, number: u32, stat: &Stat) -> Result<()> {
    let known = run.plan.layout.links(number).len() as u64 + 1;
    if stat.st_nlink > known { Err(Errno::LOOP) } else { Ok(()) }
}

/// Writes a chunk, checked, where it belongs; finishes the file with its last one.
pub(super) fn write_chunk(
    run: &Run<'_>,
    open: &OpenFiles,
    directories: &mut Directories<'_>,
    chunk: u32,
    plaintext: &[u8],
) {
    let (number, offset) = run.plan.layout.place(chunk);
    if run.has(number, state::FAILED) {
        return;
    }
    let alone = run.plan.layout.chunks(number).len() == 1 && !run.has(number, state::EXISTING);
    let written = if alone {
        write_small(run, directories, number, plaintext)
    } else {
        write_part(run, open, directories, number, offset, plaintext)
    };
    run.progress.add_bytes(plaintext.len() as u64);
    if let Err(errno) = written {
        run.fail_io(number, errno);
    }
}

/// A new file of one chunk: made, written and finished at once.
fn write_small(
    run: &Run<'_>,
    directories: &mut Directories<'_>,
    number: u32,
    plaintext: &[u8],
) -> Result<()> {
    let at = directories.around(number)?;
    let file = create_file(&*at, run.plan.layout.name(number), run.clear())?;
    run.set(number, state::BEGUN);
    if is_zero(plaintext) {
        rustix::fs::ftruncate(&file, plaintext.len() as u64)?;
        add(&run.counts.sparse, plaintext.len() as u64);
    } else {
        write_all(&file, plaintext, 0)?;
        add(&run.counts.written, plaintext.len() as u64);
    }
    finish(run, number, &file, None);
    Ok(())
}

fn write_part(
    run: &Run<'_>,
    open: &OpenFiles,
    directories: &mut Directories<'_>,
    number: u32,
    offset: u64,
    plaintext: &[u8],
) -> Result<()> {
    let file = open.get(run, directories, number)?;
    let length = plaintext.len() as u64;
    let existing = run.has(number, state::EXISTING);
    if is_zero(plaintext) && (!existing || punch(&file, offset, length)?) {
        add(&run.counts.sparse, length);
    } else {
        write_all(&*file, plaintext, offset)?;
        add(&run.counts.written, length);
    }
    if run.one_done(number) && !run.has(number, state::FAILED) {
        open.close(number);
        let stat = if existing { Some(rustix::fs::fstat(&*file)?) } else { None };
        finish(run, number, &file, stat.as_ref());
    }
    Ok(())
}

/// Makes a hole; `false` where the file system can't.
fn punch(file: &OwnedFd, offset: u64, length: u64) -> Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset, length) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets a complete file's metadata. `current` is what a file that was there has now.
pub(super) fn finish(run: &Run<'_>, number: u32, file: &OwnedFd, current: Option<&Stat>) {
    let layout = &run.plan.layout;
    debug_assert_eq!(layout.get(number).kind, Kind::File);
    run.set(number, state::DONE);
    add(&run.counts.files, 1);
    run.progress.add_file(0);
    let (entry, extra) = (layout.get(number), layout.extra(number));
    if let Err(failure) = meta::apply(Object::Open(file), entry, extra, current, run.privileged, &run.notes) {
        run.report_metadata(number, failure);
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}
