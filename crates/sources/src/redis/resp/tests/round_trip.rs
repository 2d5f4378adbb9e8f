//! Answers written by another hand, in any pieces and one after the other.

use super::*;
use bytes::BytesMut;

fn value() -> impl Strategy<Value = Value> {
    let line =
        prop::collection::vec(any::<u8>().prop_filter("a line", |byte| !b"\r\n".contains(byte)), 0..12);
    let leaf = prop_oneof![
        line.clone().prop_map(Value::Text),
        line.prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bulk),
        Just(Value::Null),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::Array))
}

fn written(value: &Value) -> Vec<u8> {
    let line = |kind: u8, text: &[u8]| [&[kind], text, b"\r\n"].concat();
    match value {
        Value::Text(text) => line(b'+', text),
        Value::Error(text) => line(b'-', text),
        Value::Integer(number) => line(b':', number.to_string().as_bytes()),
        Value::Bulk(bytes) => {
            [line(b'$', bytes.len().to_string().as_bytes()), line(b'\n', bytes)[1..].to_vec()].concat()
        }
        Value::Null => line(b'$', b"-1"),
        Value::Array(values) => {
            let inner: Vec<u8> = values.iter().flat_map(written).collect();
            [line(b'*', values.len().to_string().as_bytes()), inner].concat()
        }
    }
}

proptest! {
    #[test]
    fn answers_one_behind_the_other_are_taken_one_by_one_in_any_pieces(values in prop::collection::vec(value(), 1..5), piece in 1usize..40) {
        let bytes: Vec<u8> = values.iter().flat_map(written).collect();
        let (mut input, mut taken) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(value) = take(&mut input).unwrap() {
                taken.push(value);
            }
        }
        prop_assert_eq!(taken, values);
        prop_assert!(input.is_empty());
    }

    #[test]
    fn an_answer_that_is_not_all_there_is_never_taken(value in value(), cut: prop::sample::Index) {
        let whole = written(&value);
        let part = &whole[..cut.index(whole.len())];
        let mut input = BytesMut::from(part);
        prop_assert_eq!(take(&mut input), Ok(None));
        prop_assert_eq!(&input[..], part);
    }
}

#[test]
fn limits_are_the_last_that_is_taken() {
    let line = |bytes: usize| [&b"+"[..], &vec![b'x'; bytes], b"\r\n"].concat();
    assert!(
        matches!(all(&line(LINE_BYTES - 3)), Ok(Some(Value::Text(text))) if text.len() == LINE_BYTES - 3)
    );
    assert!(all(&line(LINE_BYTES)).is_err());
    assert_eq!(all(format!("${BULK_BYTES}\r\n").as_bytes()), Ok(None), "it may still come");
    assert!(all(format!("${}\r\n", BULK_BYTES + 1).as_bytes()).is_err());
    let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    assert!(matches!(all(&nested(8)), Ok(Some(_))));
    assert!(all(&nested(9)).is_err());
    let values = |count: usize| [format!("*{count}\r\n").into_bytes(), b":1\r\n".repeat(count)].concat();
    assert!(matches!(all(&values(VALUES - 1)), Ok(Some(_))), "the array counts, too");
    assert!(all(&values(VALUES)).is_err());
}
