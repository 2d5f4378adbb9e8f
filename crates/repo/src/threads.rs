//! Work on several threads. The caller's is one of them, so that where the system gives no others, it does all of the work.

use retoma_core::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Runs `work` on up to `count` threads called `name`.
///
/// # Errors
/// The first error of any of them; the others are not stopped by it.
pub fn on_threads(name: &str, count: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let failed = Mutex::new(None);
    let guarded = || {
        if let Err(error) = work() {
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    };
    std::thread::scope(|scope| {
        for worker in 1..count {
            let builder = std::thread::Builder::new().name(format!("{name}-{worker}"));
            if builder.spawn_scoped(scope, guarded).is_err() {
                break;
            }
        }
        guarded();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Does `work` for each of `items`, on up to `count` threads, in their order as far as threads have one.
///
/// # Errors
/// The first error. After it nothing more is begun.
pub fn for_each<T: Sync>(
    name: &str,
    count: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    on_threads(name, count.min(items.len()), || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    })
}

/// What was found and not looked at.
struct Frontier<T> {
    waiting: Vec<T>,
    busy: usize,
    is_stopped: bool,
}

/// Looks at each of `first`, and at all that looking gives, and so on, on up to `count` threads. The last found goes first, so
/// that a tree is walked in depth.
///
/// # Errors
/// The first error. After it nothing more is looked at.
pub(crate) fn explore<T: Send>(
    name: &str,
    count: usize,
    first: Vec<T>,
    look: impl Fn(T) -> Result<Vec<T>> + Sync,
) -> Result<()> {
    let frontier = Mutex::new(Frontier { waiting: first, busy: 0, is_stopped: false });
    let (lock, changed) = (|| frontier.lock().unwrap_or_else(PoisonError::into_inner), Condvar::new());
    // The next one; waits while others may still find some.
    let next = || {
        let mut now = lock();
        while !now.is_stopped {
            if let Some(found) = now.waiting.pop() {
                now.busy += 1;
                return Some(found);
            }
            if now.busy == 0 {
                return None;
            }
            now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        None
    };
    on_threads(name, count, || {
        while let Some(found) = next() {
            let looked = look(found);
            let mut now = lock();
            now.busy -= 1;
            now.is_stopped |= looked.is_err();
            changed.notify_all();
            now.waiting.extend(looked?);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::Error;
    use std::collections::BTreeSet;

    #[test]
    fn each_item_is_worked_on_once_and_none_after_an_error() {
        let items: Vec<usize> = (0..1000).collect();
        for count in [0, 1, 4] {
            let done = Mutex::new(BTreeSet::new());
            for_each("test", count, &items, |item| {
                assert!(done.lock().unwrap().insert(*item), "{item} twice");
                Ok(())
            })
            .unwrap();
            assert_eq!(done.into_inner().unwrap().len(), items.len());
        }
        let begun = AtomicUsize::new(0);
        let failed = for_each("test", 1, &items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 10 { Err(Error::internal("ten")) } else { Ok(()) }
        });
        assert_eq!((failed.unwrap_err().message(), begun.into_inner()), ("ten", 11));
        for_each("test", 4, &[], |()| Err(Error::internal("nothing to do"))).unwrap();
    }

    /// Numbers below 1000 by their digits: each finds ten, so threads wait for each other at the beginning and the end.
    #[test]
    fn all_that_is_found_is_looked_at_once_and_an_error_ends_every_wait() {
        let more =
            |number: usize| if number < 100 { (number * 10..number * 10 + 10).collect() } else { vec![] };
        for count in [1, 2, 8] {
            let seen = Mutex::new(Vec::new());
            explore("test", count, (1..10).collect(), |number| {
                seen.lock().unwrap().push(number);
                Ok(more(number))
            })
            .unwrap();
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (1..1000).collect::<Vec<_>>());
            let failed = explore("test", count, (1..10).collect(), |number| {
                if number == 555 { Err(Error::internal("found")) } else { Ok(more(number)) }
            });
            assert_eq!(failed.unwrap_err().message(), "found");
        }
        explore("test", 3, Vec::<()>::new(), |()| Ok(vec![()])).unwrap();
    }
}
