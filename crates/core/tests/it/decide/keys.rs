use jiff::{SignedDuration, Timestamp};
use retoma_core::decide::keys::{Key, Kind, Place, UNTRIED, Warning, check};

fn now() -> Timestamp {
    "2026-11-21T14:00:00Z".parse().unwrap()
}

const KINDS: [Kind; 8] = [
    Kind::Password,
    Kind::KeyFile,
    Kind::Transit,
    Kind::Unknown,
    Kind::Shares { threshold: 1, total: 1 },
    Kind::Shares { threshold: 1, total: 3 },
    Kind::Shares { threshold: 2, total: 3 },
    Kind::Shares { threshold: 3, total: 3 },
];
const PLACES: [Place; 3] = [Place::ThisHost, Place::Elsewhere, Place::Unknown];

fn every_key(id: &str) -> Vec<Key> {
    let ages = [SignedDuration::ZERO, UNTRIED, UNTRIED + SignedDuration::from_secs(1)];
    let mut keys = Vec::new();
    for kind in KINDS {
        for place in PLACES {
            for age in ages {
                keys.push(Key { id: id.to_owned(), kind, place, tried: now() - age });
            }
        }
    }
    keys
}

/// Everything that can be known of up to two keys, against the rules said in another way.
#[test]
fn every_pair_of_keys_gets_exactly_the_warnings_of_the_rules() {
    let mut sets: Vec<Vec<Key>> = vec![Vec::new()];
    sets.extend(every_key("a").into_iter().map(|key| vec![key]));
    for a in every_key("a") {
        sets.extend(every_key("b").into_iter().map(|b| vec![a.clone(), b]));
    }
    assert_eq!(sets.len(), 1 + 72 + 72 * 72);
    for keys in sets {
        let warnings = check(&keys, now());
        let has =
            |code: &str, key: Option<&str>| warnings.iter().any(|it| it.code() == code && it.key() == key);
        let away: Vec<&Key> = keys.iter().filter(|key| key.place != Place::ThisHost).collect();
        assert_eq!(has("single_key", None), keys.len() == 1, "{keys:?}");
        assert_eq!(has("only_this_host", None), !keys.is_empty() && away.is_empty(), "{keys:?}");
        let known_away = away.iter().any(|key| key.place == Place::Elsewhere);
        assert_eq!(has("none_known_elsewhere", None), !away.is_empty() && !known_away, "{keys:?}");
        let mut expected =
            keys.len() == 1 || (!keys.is_empty() && away.is_empty()) || (!away.is_empty() && !known_away);
        for key in &keys {
            let id = Some(key.id.as_str());
            let spare = matches!(key.kind, Kind::Shares { threshold, total } if threshold < total);
            let alone = keys.len() == 2 && away.len() == 1 && away[0].id == key.id && !spare;
            let one = matches!(key.kind, Kind::Shares { threshold: 1, .. });
            let all =
                matches!(key.kind, Kind::Shares { threshold, total } if threshold == total && threshold > 1);
            let old = now().duration_since(key.tried) > UNTRIED;
            assert_eq!(has("one_holder_after_the_host", id), alone, "{keys:?}");
            assert_eq!(has("threshold_one", id), one, "{keys:?}");
            assert_eq!(has("all_shares_needed", id), all, "{keys:?}");
            assert_eq!(has("untried", id), old, "{keys:?}");
            expected |= alone || one || all || old;
        }
        assert_eq!(!warnings.is_empty(), expected, "{keys:?}");
        let mut once = warnings.clone();
        once.dedup();
        assert_eq!(once, warnings);
    }
}

#[test]
fn a_password_here_and_shares_to_spare_elsewhere_are_enough() {
    let key = |id: &str, kind, place| Key { id: id.to_owned(), kind, place, tried: now() };
    let shares = Kind::Shares { threshold: 3, total: 5 };
    assert_eq!(
        check(&[key("a", Kind::Password, Place::ThisHost), key("b", shares, Place::Elsewhere)], now()),
        []
    );
    let with_file = [
        key("a", Kind::Password, Place::ThisHost),
        key("b", Kind::KeyFile, Place::Unknown),
        key("c", shares, Place::Elsewhere),
    ];
    assert_eq!(check(&with_file, now()), []);
}

#[test]
fn the_text_of_each_says_what_to_do() {
    let id = || "1a2b3c4d".to_owned();
    for warning in [
        Warning::SingleKey,
        Warning::OnlyThisHost,
        Warning::NoneKnownElsewhere,
        Warning::OneHolderAfterTheHost(id()),
        Warning::ThresholdOne(id()),
        Warning::AllSharesNeeded(id()),
        Warning::Untried(id(), 400),
    ] {
        let (message, hint) = warning.texts();
        assert_eq!(message.contains("1a2b3c4d"), warning.key().is_some());
        assert!(!hint.is_empty());
    }
}
