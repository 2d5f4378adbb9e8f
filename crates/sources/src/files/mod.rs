//! Files: a folder or a single file, as it lies in the file system.
//!
//! The snapshot holds absolute paths: the folders above the component's path are entries too, so that any tool restores
//! them to where they were. What `stat`, extended attributes and links tell is kept; a hole in a sparse file is not read.
//!
//! A file that shrinks, vanishes or is overwritten while it is read is named as unreadable and left out of the snapshot,
//! which is then incomplete. One that grows, as logs do, is kept with the size that it had when it was opened. What is
//! not seen: a program that overwrites a file and gives it its old size and both its old times within one clock tick.

mod exclude;
pub(crate) mod node;
mod read;
mod walk;

pub use exclude::Excludes;
pub(crate) use read::PathContent;
pub use walk::FilesSource;

#[cfg(test)]
mod tests;
