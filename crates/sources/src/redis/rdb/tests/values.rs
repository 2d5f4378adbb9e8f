//! Elements of values, whatever their encoding: encoded here by another hand, read, cut and changed.

use super::super::value::elements;
use super::encode::{intset, length, listpack, lzf, string};
use proptest::prelude::*;

/// Texts of all lengths around which encodings change, and numbers on both sides of each width.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        Just(-129i64),
        Just(-128),
        Just(127),
        Just(128),
        Just(-4097),
        Just(-4096),
        Just(4095),
        Just(4096),
        Just(-32_769),
        Just(32_767),
        Just(32_768),
        Just(-8_388_609),
        Just(8_388_607),
        Just(8_388_608),
        Just(i64::from(i32::MIN)),
        Just(i64::from(i32::MAX) + 1),
        Just(i64::MIN),
        Just(i64::MAX),
        any::<i64>(),
        -200i64..200
    ];
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..80),
        4 => number.prop_map(|number| number.to_string().into_bytes()),
        1 => ("[ab]{1,4}", 1usize..300).prop_map(|(text, times)| text.repeat(times).into_bytes()),
        1 => "0[0-9]{1,3}|-0|\\+1|1\\.5".prop_map(String::into_bytes),
    ]
}

fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(text(), 0..8)
}

fn strings(texts: &[Vec<u8>], form: u8) -> Vec<u8> {
    texts
        .iter()
        .zip(0u8..)
        .flat_map(|(text, at)| string(text, form.wrapping_mul(31).wrapping_add(at)))
        .collect()
}

fn sorted(mut elements: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    elements.sort();
    elements
}

proptest! {
    #[test]
    fn a_string_is_the_same_however_it_is_written(text in text(), form: u8) {
        prop_assert_eq!(elements(0, &string(&text, form)), Some(vec![text]));
    }

    #[test]
    fn a_list_keeps_its_order_in_every_encoding(texts in texts(), forms: [u8; 3], cut: prop::sample::Index) {
        let [one, two, three] = forms;
        let plain = [length(texts.len() as u64, one), strings(&texts, two)].concat();
        prop_assert_eq!(elements(1, &plain), Some(texts.clone()));
        // Nodes: some elements packed together, each of the others on its own.
        let (packed, alone) = texts.split_at(cut.index(texts.len() + 1));
        let mut nodes = length(1 + alone.len() as u64, three);
        nodes.extend([length(2, one), string(&listpack(packed, two), 0)].concat());
        for text in alone {
            nodes.extend([length(1, two), string(text, three)].concat());
        }
        prop_assert_eq!(elements(18, &nodes), Some(texts));
    }

    #[test]
    fn a_set_has_no_order_in_any_encoding(texts in texts(), numbers in prop::collection::vec(any::<i32>(), 0..6), forms: [u8; 2]) {
        let [one, two] = forms;
        let table = [length(texts.len() as u64, one), strings(&texts, two)].concat();
        let turned: Vec<Vec<u8>> = texts.iter().rev().cloned().collect();
        prop_assert_eq!(elements(2, &table), Some(sorted(texts)));
        prop_assert_eq!(elements(20, &string(&listpack(&turned, two), 0)), elements(2, &table));
        let numbers: Vec<i64> = numbers.into_iter().map(|number| i64::from(number) << (one % 33)).collect();
        let written: Vec<Vec<u8>> = numbers.iter().map(|number| number.to_string().into_bytes()).collect();
        prop_assert_eq!(elements(11, &string(&intset(&numbers), 0)), Some(sorted(written)));
    }

    #[test]
    fn a_hash_and_a_sorted_set_are_pairs_in_any_order(pairs in prop::collection::vec((text(), any::<i32>()), 0..6), forms: [u8; 2]) {
        let [one, two] = forms;
        let flat = |pairs: &[(Vec<u8>, i32)]| -> Vec<Vec<u8>> {
            pairs.iter().flat_map(|(member, score)| [member.clone(), score.to_string().into_bytes()]).collect()
        };
        let turned: Vec<_> = pairs.iter().rev().cloned().collect();
        let table = [length(pairs.len() as u64, one), strings(&flat(&pairs), two)].concat();
        let packed = string(&listpack(&flat(&turned), one), 0);
        prop_assert_eq!(elements(4, &table).map(|found| found.len()), Some(pairs.len()));
        prop_assert_eq!(elements(16, &packed), elements(4, &table));
        let scored = pairs.iter().flat_map(|(member, score)| [string(member, two), f64::from(*score).to_le_bytes().to_vec()].concat());
        let table: Vec<u8> = length(pairs.len() as u64, two).into_iter().chain(scored).collect();
        prop_assert_eq!(elements(5, &table).map(|found| found.len()), Some(pairs.len()));
        prop_assert_eq!(elements(17, &packed), elements(5, &table));
    }

    /// A comparison that calls two different values equal would let a damaged copy pass.
    #[test]
    fn two_values_that_differ_have_different_elements(texts in texts(), at: prop::sample::Index, other in text(), form: u8) {
        prop_assume!(!texts.is_empty());
        let mut changed = texts.clone();
        let at = at.index(texts.len());
        prop_assume!(changed[at] != other);
        changed[at] = other;
        let as_list = |texts: &[Vec<u8>]| elements(1, &[length(texts.len() as u64, 0), strings(texts, form)].concat());
        prop_assert_ne!(as_list(&texts), as_list(&changed));
        let as_set = |texts: &[Vec<u8>]| elements(20, &string(&listpack(texts, form), 0));
        prop_assert_ne!(as_set(&texts), as_set(&changed));
        let twice = |texts: &[Vec<u8>]| texts.iter().flat_map(|text| [b"k".to_vec(), text.clone()]).collect::<Vec<_>>();
        let as_hash = |texts: &[Vec<u8>]| elements(16, &string(&listpack(&twice(texts), form), 0));
        prop_assert_ne!(as_hash(&texts), as_hash(&changed));
    }

    #[test]
    fn a_value_that_was_cut_or_goes_on_is_no_value(texts in texts(), form: u8) {
        let table = [length(texts.len() as u64, form), strings(&texts, form)].concat();
        let packed = string(&listpack(&texts, form), form);
        for (encoding, whole) in [(1, &table), (2, &table), (20, &packed)] {
            for cut in 0..whole.len() {
                prop_assert_eq!(elements(encoding, &whole[..cut]), None, "{} bytes of encoding {}", cut, encoding);
            }
            prop_assert_eq!(elements(encoding, &[&whole[..], &[0]].concat()), None, "encoding {}", encoding);
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_a_changed_byte_never_reads_beyond(text in prop::collection::vec(0u8..4, 1..600), at: prop::sample::Index, byte: u8) {
        let written = |packed: &[u8], length_bytes: usize| {
            [vec![0xc3], length(packed.len() as u64, 2), length(length_bytes as u64, 2), packed.to_vec()].concat()
        };
        let mut packed = lzf(&text);
        prop_assert_eq!(elements(0, &written(&packed, text.len())), Some(vec![text.clone()]));
        for other in [text.len() - 1, text.len() + 1] {
            prop_assert_eq!(elements(0, &written(&packed, other)), None, "another length is a lie");
        }
        let at = at.index(packed.len());
        packed[at] = byte;
        if let Some(found) = elements(0, &written(&packed, text.len())) {
            prop_assert_eq!(found[0].len(), text.len());
        }
    }
}

/// Where the length behind an element takes a byte more.
#[test]
fn long_elements_of_a_listpack_are_passed_at_each_width_of_their_length() {
    for bytes in [126, 127, 128, 4095, 4096, 16_376, 16_377, 16_378, 16_379, 70_000] {
        let elements_in = vec![vec![b'x'; bytes], b"last".to_vec()];
        for form in 0..3 {
            let packed = string(&listpack(&elements_in, form), 0);
            let mut expected = elements_in.clone();
            expected.sort();
            assert_eq!(elements(20, &packed), Some(expected), "{bytes} bytes in form {form}");
        }
    }
}

#[test]
fn what_is_malformed_inside_of_its_lengths_is_no_value() {
    let wrapped = |bytes: &[u8]| string(bytes, 0);
    let one = listpack(&[b"a".to_vec()], 1);
    assert!(elements(20, &wrapped(&one)).is_some());
    let mut changed = one.clone();
    changed[0] += 1;
    assert_eq!(elements(20, &wrapped(&changed)), None, "another length than it has");
    let mut changed = one.clone();
    *changed.last_mut().unwrap() = 0xfe;
    assert_eq!(elements(20, &wrapped(&changed)), None, "no end");
    // Half a pair is neither a field nor a member.
    for encoding in [16, 17] {
        assert_eq!(elements(encoding, &wrapped(&one)), None, "encoding {encoding}");
    }
    let unscored = listpack(&[b"m".to_vec(), b"much".to_vec()], 1);
    assert_eq!(elements(17, &wrapped(&unscored)), None, "a score that is no number");
    for width in [0u8, 1, 3, 16] {
        assert_eq!(
            elements(11, &wrapped(&[width, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
            None,
            "{width}"
        );
    }
    assert_eq!(elements(18, &[1, 3, 1, b'a']), None, "a node of an unknown kind");
    for encoding in [3, 7, 9, 10, 12, 13, 14, 22, 255] {
        assert_eq!(elements(encoding, &[1, 1, b'a']), None, "encoding {encoding} is not compared");
    }
}
