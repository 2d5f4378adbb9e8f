//! Tests of the model file's format and of the checked copy in memory.

mod damage;

use proptest::prelude::*;

use super::*;

fn small() -> Model {
    Model::new(7, 2, vec![0.5, -1.0, 0.25, 1.5, 2.0, -0.75]).unwrap()
}

/// Writes `model` and its checksum; gives the path.
fn write(folder: &Path, model: &Model) -> PathBuf {
    let path = folder.join("m.f32");
    let bytes = model.encode();
    fs::write(sidecar_of(&path), sidecar_line("m.f32", &bytes)).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_score_is_the_sigmoid_of_the_dot_product() {
    let model = Model::new(1, 2, vec![0.5, -1.0, 0.25]).unwrap();
    let expected = 1.0 / (1.0 + (-(0.5 * 3.0 - 2.0 + 0.25_f64)).exp());
    assert!((model.score(&[3.0, 2.0]).unwrap() - expected).abs() < 1e-12);
    assert_eq!(model.score(&[3.0]), None);
}

#[test]
fn different_features_ask_different_heads() {
    let model = Model::new(1, 1, (0..200_u16).map(f32::from).collect()).unwrap();
    let heads: std::collections::BTreeSet<_> =
        (0..100_u16).map(|n| model.head_for(&[f32::from(n)])).collect();
    assert!(heads.len() > 50, "{} heads of 100", heads.len());
}

#[test]
fn a_model_of_wrong_shape_is_refused() {
    for (features, weights) in [(0, vec![1.0]), (2, vec![]), (2, vec![1.0; 4]), (1, vec![1.0, f32::NAN])] {
        assert_eq!(Model::new(1, features, weights).unwrap_err().code(), codes::SAMPLE_MODEL);
    }
}

#[test]
fn the_slot_keeps_the_last_right_model_and_says_what_is_wrong_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &small());
    let slot = ModelSlot::new(path.clone(), 2);
    assert_eq!(*slot.check().unwrap(), small());

    let mut damaged_bytes = small().encode();
    damaged_bytes[MODEL_HEADER_BYTES] ^= 1;
    fs::write(&path, damaged_bytes).unwrap();
    let error = slot.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert_eq!(*slot.model().unwrap(), small());

    let next = Model::new(8, 2, vec![1.0; 3]).unwrap();
    write(folder.path(), &next);
    assert_eq!(*slot.check().unwrap(), next);
    fs::remove_file(sidecar_of(&path)).unwrap();
    assert!(slot.check().unwrap_err().to_string().contains("checksum file"));
    fs::remove_file(&path).unwrap();
    assert!(slot.check().is_err());
}

#[test]
fn a_slot_that_never_saw_a_right_model_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &small());
    let slot = ModelSlot::new(path, 3);
    assert!(slot.model().unwrap_err().to_string().contains("2 features, the service 3"));
}

#[test]
fn the_folder_check_looks_at_every_model() {
    let folder = tempfile::tempdir().unwrap();
    assert!(check_folder(folder.path()).is_err(), "an empty folder is no pass");
    write(folder.path(), &small());
    check_folder(folder.path()).unwrap();
    fs::write(folder.path().join("other.f32"), b"no checksum").unwrap();
    assert!(check_folder(folder.path()).is_err());
}

#[test]
fn the_checksum_line_is_what_sha256sum_writes() {
    assert_eq!(
        sidecar_line("m.f32", b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  m.f32\n"
    );
}

proptest! {
    #[test]
    fn encode_and_decode_are_inverse(
        version: u32,
        features in 1_u32..20,
        heads in 1_usize..10,
        values in proptest::collection::vec(-1e30_f32..1e30, 200),
    ) {
        let weights = values.into_iter().take((features as usize + 1) * heads).collect();
        let model = Model::new(version, features, weights).unwrap();
        prop_assert_eq!(Model::decode(&model.encode()).unwrap(), model);
    }

    #[test]
    fn decoding_anything_never_panics(head in proptest::collection::vec(any::<u8>(), 24), rest: Vec<u8>) {
        let bytes: Vec<u8> = MAGIC.iter().copied().chain(head).chain(rest.clone()).collect();
        for input in [bytes, rest] {
            if let Ok(model) = Model::decode(&input) {
                prop_assert_eq!(model.encode(), input);
            }
        }
    }

    #[test]
    fn a_cut_model_is_refused(cut in 0_usize..56) {
        let bytes = small().encode();
        prop_assert_eq!(bytes.len(), 56);
        prop_assert!(Model::decode(&bytes[..cut]).is_err());
    }
}
