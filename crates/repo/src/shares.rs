//! A password that is split: k of n shares open, fewer tell nothing (Shamir, over GF(256)). `docs/keys.md`, "Shares".
//!
//! Whether shares are true is known before they are joined where the repository has their record, and after it in any case: a
//! joined secret must have the hash that is the name of its set. So no wrong share ever becomes a silently wrong key.

use crate::crypto;
use crate::format::recipient::{ShareSet, Wrapping};
use crate::recipients::{self, Known};
use crate::repository::Repository;
use crate::store::BlockingStore;
use blahaj::Sharks;
use retoma_core::share::{SetId, Share, VALUE_BYTES};
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, Secret, error::codes};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// A new random password and its shares.
#[derive(Debug)]
pub struct Split {
    /// What the shares open.
    pub password: Secret<String>,
    /// The shares, by their numbers.
    pub shares: Vec<Share>,
}

impl Split {
    /// What is stored of the shares.
    pub fn wrapping(&self) -> Wrapping {
        let checks = self.shares.iter().map(Share::check).collect();
        let (set, threshold) =
            self.shares.first().map_or((SetId([0; 8]), 0), |share| (share.set(), share.threshold()));
        Wrapping::Shares(ShareSet { set, threshold, checks })
    }
}

/// Makes a random password of 256 bits and `total` shares of it, of which any `threshold` open.
///
/// # Errors
/// `Invalid` with `R0002` unless 1 ≤ `threshold` ≤ `total`; the system has no random numbers.
pub fn split(threshold: u8, total: u8) -> Result<Split> {
    if threshold == 0 || threshold > total {
        let message = format!("{total} shares with a threshold of {threshold} cannot be");
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
            .with_hint("the threshold is at least 1 and at most the number of shares: for example 3 of 5"));
    }
    let mut secret = Zeroizing::new([0; VALUE_BYTES]);
    crypto::random(&mut *secret)?;
    let set = SetId::of(&secret);
    let dealt = Sharks(threshold).dealer(&*secret).take(usize::from(total));
    let shares = (1..=total).zip(dealt).map(|(index, dealt)| {
        let bytes = Zeroizing::new(Vec::from(&dealt));
        let mut value = Zeroizing::new([0; VALUE_BYTES]);
        match bytes.split_first() {
            Some((x, y)) if *x == index && y.len() == VALUE_BYTES => value.copy_from_slice(y),
            _ => return Err(Error::internal("a share of another form was dealt")),
        }
        Share::new(set, (threshold, total), index, *value)
    });
    let shares = shares.collect::<Result<Vec<_>>>()?;
    // What opens nothing must not leave this function.
    let password = password_of(&secret);
    let last = shares.len() - usize::from(threshold);
    for some in [&shares[..usize::from(threshold)], &shares[last..]] {
        if join(&some.iter().collect::<Vec<_>>())?.expose() != password.expose() {
            return Err(Error::internal("the shares do not give the secret back"));
        }
    }
    Ok(Split { password, shares })
}

/// The password as restic takes it: 64 hexadecimal digits.
fn password_of(secret: &[u8; VALUE_BYTES]) -> Secret<String> {
    Secret::new(crate::id::hex(secret))
}

/// Joins shares of one set, each number once.
fn join(shares: &[&Share]) -> Result<Secret<String>> {
    let Some(first) = shares.first() else { return Err(Error::internal("no share to join")) };
    let wrong = || {
        let message =
            format!("the shares of set {} do not belong together: one or more were altered", first.set());
        Error::new(ErrorKind::Unauthorized, codes::SHARE_WRONG, message).with_hint(
            "use other shares of the set, one in place of another, until the true ones are together",
        )
    };
    let needed = usize::from(first.threshold());
    let points = shares.iter().take(needed).map(|share| {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + VALUE_BYTES));
        bytes.push(share.index());
        bytes.extend_from_slice(share.value());
        blahaj::Share::try_from(bytes.as_slice())
    });
    let points = points.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| wrong())?;
    let joined = Sharks(first.threshold()).recover(&points).map(Zeroizing::new).map_err(|_| wrong())?;
    let mut secret = Zeroizing::new([0; VALUE_BYTES]);
    if joined.len() != VALUE_BYTES {
        return Err(wrong());
    }
    secret.copy_from_slice(&joined);
    if SetId::of(&secret) == first.set() { Ok(password_of(&secret)) } else { Err(wrong()) }
}

/// The shares of one set by their numbers. The same one twice counts once.
type Group<'a> = BTreeMap<u8, &'a Share>;

/// Opens the repository with enough of `shares`, which may be of several sets, and gives the password that they made.
///
/// # Errors
/// `Unauthorized` with `R0232` for too few, with `R0233` for one that is altered, and with `R0202` when they are of another
/// repository; otherwise as [`Repository::open`].
pub fn open(store: &BlockingStore, shares: &[Share]) -> Result<(Repository, Secret<String>)> {
    let known = recipients::read(store)?;
    let groups = group(shares)?;
    let (mut few, mut opens_nothing) = (None, None);
    for (set, group) in &groups {
        let needed = group.values().map(|share| share.threshold()).max().unwrap_or(1);
        if group.len() < usize::from(needed) {
            few = Some(too_few(*set, needed, group));
            continue;
        }
        let password = join_known(known.share_set(*set), group)?;
        match Repository::open(store.clone(), &password) {
            Err(error) if error.code() == codes::WRONG_KEY => opens_nothing = Some(*set),
            other => return other.map(|repository| (repository, password)),
        }
    }
    let place = store.store().location();
    Err(match (few, opens_nothing) {
        (Some(few), _) => few,
        (None, Some(set)) => not_of_this(&place, set, &known),
        (None, None) => Error::new(ErrorKind::Invalid, codes::USAGE, "no share was given")
            .with_hint("name files with `--share FILE`"),
    })
}

/// Joins a group, those first that the record knows. The record was read without a key: it may name a wrong share, and choose among
/// many, but it cannot keep true ones from opening.
fn join_known(record: Option<&ShareSet>, group: &Group<'_>) -> Result<Secret<String>> {
    let mut shares: Vec<&Share> = group.values().copied().collect();
    shares.sort_by_key(|share| record.is_some_and(|record| !record.has(share)));
    match join(&shares) {
        Err(error) if error.code() == codes::SHARE_WRONG => {
            record.map_or(Ok(()), |record| refuse_altered(record, group))?;
            Err(error)
        }
        other => other,
    }
}

fn group(shares: &[Share]) -> Result<BTreeMap<SetId, Group<'_>>> {
    let mut groups: BTreeMap<SetId, Group<'_>> = BTreeMap::new();
    for share in shares {
        let group = groups.entry(share.set()).or_default();
        let first = group.values().next().copied().unwrap_or(share);
        let is_alike = (first.threshold(), first.total()) == (share.threshold(), share.total());
        let same = group.insert(share.index(), share);
        if !is_alike || same.is_some_and(|same| same != share) {
            let message =
                format!("two shares of set {} contradict each other: one of them was altered", share.set());
            return Err(Error::new(ErrorKind::Unauthorized, codes::SHARE_WRONG, message)
                .with_hint("leave one of them out, then the other"));
        }
    }
    Ok(groups)
}

fn refuse_altered(record: &ShareSet, group: &Group<'_>) -> Result<()> {
    let altered: Vec<String> =
        group.values().filter(|share| !record.has(share)).map(|share| share.index().to_string()).collect();
    if altered.is_empty() {
        return Ok(());
    }
    let plural = if altered.len() == 1 { "is not the one that was" } else { "are not the ones that were" };
    let noun = if altered.len() == 1 { "share" } else { "shares" };
    let message = format!("{noun} {} of set {} {plural} made", altered.join(", "), record.set);
    Err(Error::new(ErrorKind::Unauthorized, codes::SHARE_WRONG, message)
        .with_hint("leave it out and use another share of the set; somebody altered it on purpose, or the record in `recipients/`"))
}

fn too_few(set: SetId, needed: u8, group: &Group<'_>) -> Error {
    let here: Vec<String> = group.keys().map(u8::to_string).collect();
    let missing = usize::from(needed).saturating_sub(group.len());
    let noun = if here.len() == 1 { "number" } else { "numbers" };
    let message = format!(
        "set {set} opens with {}, and {} here ({noun} {})",
        counted(u64::from(needed), "share", "shares"),
        counted(here.len() as u64, "is", "are"),
        here.join(", ")
    );
    Error::new(ErrorKind::Unauthorized, codes::SHARES_FEW, message)
        .with_hint(format!("bring {} of the same set", counted(missing as u64, "more share", "more shares")))
}

fn not_of_this(place: &str, set: SetId, known: &Known) -> Error {
    let message = format!(
        "the shares of set {set} are whole, and no key of the repository at `{place}` opens with them"
    );
    let sets: Vec<String> = known.share_sets().map(|set| set.set.to_string()).collect();
    let hint = if sets.is_empty() {
        "they are of another repository, or their key was removed; this repository has no key that is split"
            .to_owned()
    } else {
        format!(
            "they are of another repository, or their key was replaced; this one opens with shares of set {}",
            sets.join(" or ")
        )
    };
    Error::new(ErrorKind::Unauthorized, codes::WRONG_KEY, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Any `threshold` of them give the password, in any order; one less gives none; one altered is never believed.
        #[test]
        fn any_threshold_of_the_shares_open_and_fewer_do_not(
            (total, threshold) in (1..=12_u8).prop_flat_map(|total| (Just(total), 1..=total)),
            order in any::<proptest::sample::Index>(), at in 0..VALUE_BYTES, flip in 1..=255_u8,
        ) {
            let split = split(threshold, total).unwrap();
            let needed = usize::from(threshold);
            let start = order.index(usize::from(total));
            let mut some: Vec<Share> = split.shares.iter().cycle().skip(start).take(needed).cloned().collect();
            let joined = join(&some.iter().collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(joined.expose(), split.password.expose());
            prop_assert_eq!(split.password.expose().len(), 64);
            if needed > 1 {
                let fewer: Vec<&Share> = some.iter().take(needed - 1).collect();
                prop_assert!(join(&fewer).is_err());
            }
            let true_one = some[0].clone();
            let mut value = *true_one.value();
            value[at] ^= flip;
            some[0] = Share::new(true_one.set(), (threshold, total), true_one.index(), value).unwrap();
            prop_assert_eq!(join(&some.iter().collect::<Vec<_>>()).unwrap_err().code(), codes::SHARE_WRONG);
            let Wrapping::Shares(record) = split.wrapping() else { panic!("not shares") };
            prop_assert!(record.has(&true_one) && !record.has(&some[0]));
        }
    }

    #[test]
    fn impossible_numbers_are_refused_and_shares_that_contradict_each_other_too() {
        for (threshold, total) in [(0, 0), (0, 3), (4, 3)] {
            assert_eq!(split(threshold, total).unwrap_err().code(), codes::USAGE);
        }
        let split = split(2, 3).unwrap();
        let one = &split.shares[0];
        let other = Share::new(one.set(), (2, 3), 1, [0; VALUE_BYTES]).unwrap();
        assert_eq!(group(&[one.clone(), other]).unwrap_err().code(), codes::SHARE_WRONG);
        let other = Share::new(one.set(), (1, 3), 2, [0; VALUE_BYTES]).unwrap();
        assert_eq!(group(&[one.clone(), other]).unwrap_err().code(), codes::SHARE_WRONG);
        assert_eq!(
            group(&[one.clone(), one.clone()]).unwrap()[&one.set()].len(),
            1,
            "the same one twice counts once"
        );
    }
}
