//! Everything but the contents of files: directories before them, links and special files after them.

use super::layout::{Entry, Kind, ROOT};
use super::meta::{self, Object};
use super::run::{Run, add, state};
use super::target::{Clear, Directories, open_any, open_directory, proc_path, remove, replacing, stat};
use retoma_core::Result;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Removes what the plan lists as not in the snapshot.
///
/// # Errors
/// `Cancelled`.
pub(super) fn delete_extra(run: &Run<'_>) -> Result<()> {
    let mut directories = run.directories();
    for (directory, name) in &run.plan.extra {
        run.check_cancelled()?;
        let removed = directories.get(*directory).and_then(|at| remove(&*at, name, Clear::Everything));
        match removed {
            Ok(()) => add(&run.counts.deleted, 1),
            Err(errno) => {
                let doing = format!("remove `{}`, which is not in the snapshot", name.escape_ascii());
                run.report(*directory, run.error(*directory, errno).context(doing));
            }
        }
    }
    Ok(())
}

/// Makes all directories, those around others first; only we may enter new ones until they are finished.
///
/// # Errors
/// `Cancelled`.
pub(super) fn make_directories(run: &mut Run<'_>) -> Result<()> {
    if run.target.created {
        run.set(ROOT, state::FRESH);
    }
    let device = rustix::fs::fstat(run.target.root()).map(|stat| stat.st_dev).unwrap_or_default();
    let mut mounts = std::collections::HashMap::new();
    let mut directories = run.directories();
    for (number, entry) in run.plan.layout.iter().skip(1) {
        if entry.kind != Kind::Directory || run.is_stopping() {
            continue;
        }
        let made = directories.around(number).and_then(|at| make_directory(run, &at, number));
        match made {
            Ok(Some(found)) if found != device && !mounts.contains_key(&found) => {
                // For the sync at the end: another file system is mounted here.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = directories
                    .get(number)
                    .and_then(|at| rustix::fs::openat(&*at, ".", flags, Mode::empty()));
                if let Ok(opened) = opened {
                    mounts.insert(found, opened);
                }
            }
            Ok(_) => {}
            Err(errno) => run.fail_io(number, errno),
        }
    }
    drop(directories);
    run.mounts = mounts;
    run.check_cancelled()
}

/// Makes a directory; where there is one, gives its file system's number.
fn make_directory(run: &Run<'_>, at: &OwnedFd, number: u32) -> rustix::io::Result<Option<u64>> {
    let name = run.plan.layout.name(number);
    let fresh_around = run.has(run.plan.layout.get(number).parent, state::FRESH);
    if !fresh_around
        && let Ok(found) = stat(at, name)
        && FileType::from_raw_mode(found.st_mode) == FileType::Directory
    {
        let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
        if !mode.contains(Mode::RWXU) {
            let handle = open_directory(at, name)?;
            rustix::fs::chmodat(CWD, proc_path(&handle), mode | Mode::RWXU, AtFlags::empty())?;
        }
        return Ok(Some(found.st_dev));
    }
    replacing(at.as_fd(), name, Clear::Empty, |at, name| rustix::fs::mkdirat(at, name, Mode::RWXU))?;
    run.set(number, state::FRESH);
    Ok(None)
}

/// Makes hard links, symbolic links, pipes and devices.
///
/// # Errors
/// `Cancelled`.
pub(super) fn make_links(run: &Run<'_>) -> Result<()> {
    let mut directories = run.directories();
    for (number, entry) in run.plan.layout.iter() {
        if matches!(entry.kind, Kind::Directory | Kind::File) {
            continue;
        }
        run.check_cancelled()?;
        if run.is_stopping() {
            return Ok(());
        }
        let made = match entry.kind {
            Kind::HardLink => hard_link(run, &mut directories, number),
            _ => directories.around(number).and_then(|at| special(run, &at, number, entry)),
        };
        if let Err(errno) = made {
            run.fail_io(number, errno);
        }
    }
    Ok(())
}

fn hard_link(run: &Run<'_>, directories: &mut Directories<'_>, number: u32) -> rustix::io::Result<()> {
    let layout = &run.plan.layout;
    let first = layout.extra(number).map_or(ROOT, |extra| extra.first);
    if !run.has(first, state::DONE) {
        let message = format!("its other name `{}` could not be restored", run.shown(first).escape_ascii());
        let (kind, code) = (retoma_core::ErrorKind::Corrupt, retoma_core::error::codes::RESTORE_INCOMPLETE);
        run.fail(number, retoma_core::Error::new(kind, code, message));
        return Ok(());
    }
    let (from, to) = (directories.around(first)?, directories.around(number)?);
    let (from_name, to_name) = (layout.name(first), layout.name(number));
    let original = stat(&*from, from_name)?;
    let linked = stat(&*to, to_name)
        .is_ok_and(|found| (found.st_dev, found.st_ino) == (original.st_dev, original.st_ino));
    if !linked {
        replacing(to.as_fd(), to_name, run.clear(), |to, name| {
            rustix::fs::linkat(&*from, from_name, to, name, AtFlags::empty())
        })?;
    }
    run.set(number, state::DONE);
    add(&run.counts.files, 1);
    Ok(())
}

/// A link, pipe or device; one that is there is made anew.
fn special(run: &Run<'_>, at: &OwnedFd, number: u32, entry: &Entry) -> rustix::io::Result<()> {
    let layout = &run.plan.layout;
    let (name, extra) = (layout.name(number), layout.extra(number));
    let device = extra.map_or(0, |extra| extra.device);
    let make = |kind: FileType, device: u64| {
        let mode = Mode::RUSR | Mode::WUSR;
        replacing(at.as_fd(), name, run.clear(), |at, name| rustix::fs::mknodat(at, name, kind, mode, device))
    };
    match entry.kind {
        Kind::Symlink => {
            let link = extra.map_or(&[][..], |extra| &extra.target);
            replacing(at.as_fd(), name, run.clear(), |at, name| rustix::fs::symlinkat(link, at, name))?;
        }
        Kind::Fifo => make(FileType::Fifo, 0)?,
        Kind::CharDevice => make(FileType::CharacterDevice, device)?,
        Kind::BlockDevice => make(FileType::BlockDevice, device)?,
        Kind::Directory | Kind::File | Kind::HardLink => return Err(Errno::INVAL),
    }
    run.set(number, state::DONE);
    add(&run.counts.others, 1);
    let handle;
    let object = if entry.kind == Kind::Symlink {
        Object::Link(at, name)
    } else {
        handle = open_any(at, name)?;
        // Somebody may have put something else there.
        if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        Object::Handle(&handle)
    };
    if let Err(failure) = meta::apply(object, entry, extra, None, run.privileged, &run.notes) {
        run.report_metadata(number, failure);
    }
    Ok(())
}

/// Sets directories' metadata, deepest first: what is done in a directory changes its times.
///
/// # Errors
/// `Cancelled`.
pub(super) fn finish_directories(run: &Run<'_>) -> Result<()> {
    let layout = &run.plan.layout;
    let mut directories = run.directories();
    for (number, entry) in layout.iter().rev() {
        if entry.kind != Kind::Directory || run.has(number, state::FAILED) && !run.has(number, state::FRESH) {
            continue;
        }
        run.check_cancelled()?;
        if number == ROOT {
            let asked = run.plan.options.root_metadata || run.target.created;
            if run.plan.options.strip.is_none() || !asked {
                continue;
            }
        }
        let opened = directories.get(number);
        let done = opened.map_err(|errno| ("open the directory", errno)).and_then(|handle| {
            let current = rustix::fs::fstat(&*handle).ok().filter(|_| !run.has(number, state::FRESH));
            let extra = layout.extra(number);
            let object = Object::Handle(&handle);
            meta::apply(object, entry, extra, current.as_ref(), run.privileged, &run.notes)
        });
        match done {
            Err(failure) => run.report_metadata(number, failure),
            Ok(()) if number != ROOT => add(&run.counts.directories, 1),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Makes everything durable: one sync for each file system instead of one for each file.
pub(super) fn sync(run: &Run<'_>) {
    for descriptor in std::iter::once(run.target.root()).chain(run.mounts.values()) {
        if let Err(errno) = rustix::fs::syncfs(descriptor) {
            run.report(ROOT, run.error(ROOT, errno).context("make the restored files durable"));
        }
    }
}
