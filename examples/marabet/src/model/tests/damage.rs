//! Every change to a model or its checksum is seen, and the bytes are those that are written down.

use proptest::prelude::*;

use super::*;

/// Another file at the path, as a restore puts it there: seen at once, however coarse the file system's clock is.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, path).unwrap();
}

#[test]
fn the_bytes_of_a_model_are_those_of_the_description() {
    let model = Model::new(0x0102_0304, 2, vec![1.0, -2.0, 0.5]).unwrap();
    let mut expected = b"MARABET\0".to_vec();
    expected.extend([1, 0, 0, 0]);
    expected.extend([4, 3, 2, 1]);
    expected.extend([2, 0, 0, 0]);
    expected.extend([1, 0, 0, 0]);
    expected.extend([0; 8]);
    expected.extend([0, 0, 0x80, 0x3f]);
    expected.extend([0, 0, 0, 0xc0]);
    expected.extend([0, 0, 0, 0x3f]);
    assert_eq!(model.encode(), expected);
    assert_eq!(Model::decode(&expected).unwrap(), model);
    assert_eq!((model.version(), model.features(), model.heads()), (0x0102_0304, 2, 1));
}

#[test]
fn each_word_of_the_header_is_looked_at() {
    let good = small().encode();
    // Magic, format, features, heads and the zeros; the version may be anything.
    for at in (0..12).chain(16..32) {
        let mut changed = good.clone();
        changed[at] ^= 0x40;
        assert!(Model::decode(&changed).is_err(), "byte {at}");
    }
    let mut longer = good.clone();
    longer.extend([0; 4]);
    assert!(Model::decode(&longer).is_err(), "more weights than announced");
    let mut infinite = good;
    infinite[MODEL_HEADER_BYTES..MODEL_HEADER_BYTES + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(Model::decode(&infinite).unwrap_err().to_string().contains("finite"));
}

/// Sizes whose product goes beyond any number must not be taken for small ones.
#[test]
fn sizes_that_overflow_are_refused() {
    for (features, heads) in
        [(u32::MAX, u32::MAX), (u32::MAX, 1), (0, 0), (0x3fff_ffff, 4), (0xffff_fffe, 0x4000_0000)]
    {
        let mut bytes = b"MARABET\0\x01\0\0\0\x01\0\0\0".to_vec();
        bytes.extend(features.to_le_bytes());
        bytes.extend(heads.to_le_bytes());
        bytes.extend([0; 8]);
        for body in [0, 4, 16] {
            assert!(
                Model::decode(&[&bytes[..], &vec![0; body]].concat()).is_err(),
                "{features} × {heads}, {body}"
            );
        }
    }
}

#[test]
fn every_changed_byte_of_a_model_or_of_its_sum_is_red_and_what_was_right_goes_on_being_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &small());
    let slot = ModelSlot::new(path.clone(), 2);
    slot.check().unwrap();
    let (model, sum) = (fs::read(&path).unwrap(), fs::read(sidecar_of(&path)).unwrap());
    for at in 0..model.len() {
        let mut changed = model.clone();
        changed[at] ^= 1;
        replace(&path, &changed);
        assert!(slot.check().is_err(), "byte {at}");
        assert!(check_folder(folder.path()).is_err(), "byte {at}");
        assert_eq!(*slot.model().unwrap(), small());
    }
    replace(&path, &model);
    for at in 0..64 {
        let mut changed = sum.clone();
        changed[at] ^= 1;
        replace(&sidecar_of(&path), &changed);
        assert!(slot.check().is_err(), "digit {at}");
        assert!(check_folder(folder.path()).is_err(), "digit {at}");
    }
    replace(&sidecar_of(&path), &sum.to_ascii_uppercase());
    slot.check().unwrap();
    replace(&sidecar_of(&path), &sum[..63]);
    assert!(slot.check().is_err(), "a sum that is cut");
    replace(&sidecar_of(&path), &sum[..64]);
    slot.check().unwrap();
}

#[test]
fn what_is_no_model_is_not_looked_at_and_a_model_without_its_sum_is_red() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &small());
    for name in ["notes.txt", "m.f32.sha256.old", "f32", "m.f32.tmp"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    check_folder(folder.path()).unwrap();
    fs::copy(folder.path().join("m.f32"), folder.path().join("copy.f32")).unwrap();
    assert!(check_folder(folder.path()).unwrap_err().to_string().contains("copy.f32.sha256"));
    assert!(check_folder(&folder.path().join("absent")).is_err());
}

/// The time of a file may be set back by a program; its contents count all the same.
#[test]
fn a_file_with_the_old_size_and_time_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &small());
    let slot = ModelSlot::new(path.clone(), 2);
    slot.check().unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut changed = small().encode();
    changed[40] ^= 1;
    let before = FileState::at(&path);
    // Until the file system's clock has moved on.
    while FileState::at(&path) == before {
        fs::write(&path, &changed).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    }
    assert!(slot.check().is_err());
}

proptest! {
    #[test]
    fn a_score_is_a_probability_and_grows_with_what_counts_for_it(
        weights in prop::collection::vec(-100.0f32..100.0, 3),
        features in prop::collection::vec(-100.0f32..100.0, 2),
    ) {
        let model = Model::new(1, 2, weights.clone()).unwrap();
        let score = model.score(&features).unwrap();
        prop_assert!((0.0..=1.0).contains(&score));
        let logit = f64::from(weights[0]) * f64::from(features[0])
            + f64::from(weights[1]) * f64::from(features[1]) + f64::from(weights[2]);
        prop_assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-12);
        prop_assert_eq!(score >= 0.5, logit >= 0.0, "{} {}", score, logit);
    }

    /// With several heads the answer is that of one of them, and the same each time.
    #[test]
    fn the_same_features_always_ask_the_same_head(
        heads in prop::collection::vec(prop::collection::vec(-2.0f32..2.0, 3), 1..9),
        features in prop::collection::vec(-2.0f32..2.0, 2),
    ) {
        let model = Model::new(1, 2, heads.concat()).unwrap();
        let again = Model::decode(&model.encode()).unwrap();
        let score = model.score(&features).unwrap();
        prop_assert_eq!(again.score(&features).unwrap().to_bits(), score.to_bits());
        let alone = heads.iter().map(|head| Model::new(1, 2, head.clone()).unwrap().score(&features).unwrap());
        prop_assert!(alone.into_iter().any(|of_head| of_head.to_bits() == score.to_bits()));
    }
}
