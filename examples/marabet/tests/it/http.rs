//! The routes.

use retoma_marabet::Model;
use serde_json::json;

use super::service::{FEATURES, ROWS, Service, features, model_path, root};

#[test]
fn a_prediction_is_computed_from_the_model_and_kept() {
    let root = root();
    let service = Service::start(root.path());
    let (status, made) = service.post("/predict", &features(2.5));
    assert_eq!(status, 200, "{made}");

    let model = Model::decode(&std::fs::read(model_path(&service.layout)).unwrap()).unwrap();
    let mut asked = [0.5; FEATURES];
    asked[0] = 2.5;
    let expected = model.score(&asked).unwrap();
    assert!((made["score"].as_f64().unwrap() - expected).abs() < 1e-12);
    assert_eq!(made["model_version"], model.version());

    let (_, kept) = service.get(&format!("/predictions/{}", made["id"]));
    assert_eq!((&kept["score"], &kept["features"]), (&made["score"], &json!(asked)));
    assert_eq!(service.get("/predictions?limit=1").1, json!([kept]));
    assert_eq!(service.get("/predictions/count").1, json!({"count": ROWS + 1}));
}

#[test]
fn predictions_are_listed_newest_first_and_bounded() {
    let root = root();
    let service = Service::start(root.path());
    let ids: Vec<i64> = (0..3_u8).map(|n| service.predict(f32::from(n))).collect();
    let listed = |path: &str| -> Vec<i64> {
        service.get(path).1.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(listed("/predictions?limit=3"), [ids[2], ids[1], ids[0]]);
    assert_eq!(listed("/predictions").len(), 20);
    assert_eq!(listed("/predictions?limit=4000000").len(), usize::try_from(ROWS).unwrap() + 3);
}

#[test]
fn markers_are_kept_once_and_counted_by_run() {
    let root = root();
    let service = Service::start(root.path());
    for number in [1, 2, 2, 5] {
        let marker = json!({"run": "drill-1", "number": number});
        assert_eq!(service.post("/marker", &marker), (200, marker));
    }
    let (_, found) = service.get("/markers?run=drill-1");
    assert_eq!(found, json!({"run": "drill-1", "count": 3, "max": 5, "missing": [[3, 4]]}));
    assert_eq!(service.get("/markers?run=other").1["count"], 0);
}

#[test]
fn wrong_requests_are_refused_with_a_reason_and_write_nothing() {
    let root = root();
    let service = Service::start(root.path());
    for (path, body) in [
        ("/predict", json!({"features": vec![1.0; FEATURES], "user_id": 77})),
        ("/predict", json!({"features": [1.0]})),
        ("/predict", json!({"features": vec![1e300; FEATURES]})),
        ("/predict", json!({"features": "many"})),
        ("/predict", json!({"feature": []})),
        ("/marker", json!({"run": "a", "number": 0})),
        ("/marker", json!({"run": "a", "number": u64::MAX})),
        ("/marker", json!({"run": "../a b", "number": 1})),
        ("/marker", json!({"run": "a".repeat(65), "number": 1})),
    ] {
        let (status, answer) = service.post(path, &body);
        assert_eq!((status, answer["code"].as_str()), (422, Some("R0995")), "{path} {body}: {answer}");
    }
    for (path, status) in
        [("/predictions/999999", 404), ("/nothing", 404), ("/predictions/x", 422), ("/markers", 422)]
    {
        assert_eq!(service.get(path).0, status, "{path}");
    }
    assert_eq!(service.get("/predictions/count").1["count"], ROWS);
    assert_eq!(service.get("/markers?run=a").1["count"], 0);
}

#[test]
fn each_request_leaves_a_line_in_the_log() {
    let root = root();
    let service = Service::start(root.path());
    service.assert_green();
    service.predict(1.0);
    service.get("/predictions/999999");
    let log = std::fs::read_to_string(service.layout.log()).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> =
        lines.iter().map(|line| json!([line["method"], line["path"], line["status"]])).collect();
    let expected = [
        json!(["GET", "/healthz", 200]),
        json!(["POST", "/predict", 200]),
        json!(["GET", "/predictions/999999", 404]),
    ];
    assert_eq!(seen, expected);
}
