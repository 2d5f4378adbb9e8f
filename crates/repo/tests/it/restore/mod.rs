//! Snapshots become files again: those of our own backups and those that restic wrote.

mod basic;
mod compare;
mod damage;
mod fallback;
mod far;
mod hostile;
mod in_place;
mod model;
mod nodes;
mod range;
mod restic;
mod support;
