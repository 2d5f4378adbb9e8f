//! What was acknowledged is there after the process was killed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use retoma_marabet::{LoadOptions, load, markers};
use retoma_testkit::{PATIENCE, wait_for};
use serde_json::json;

use super::service::{ROWS, Service, root};

#[test]
fn acknowledged_rows_survive_a_kill() {
    let root = root();
    let service = Service::start(root.path());
    let ids: Vec<i64> = (0..20_u8).map(|n| service.predict(f32::from(n))).collect();
    assert_eq!(service.post("/marker", &json!({"run": "kill", "number": 1})).0, 200);
    service.kill();

    let service = Service::start(root.path());
    service.assert_green();
    for (id, first) in ids.into_iter().zip(0_u8..) {
        let (status, row) = service.get(&format!("/predictions/{id}"));
        assert_eq!((status, row["features"][0].as_f64()), (200, Some(f64::from(first))));
    }
    assert_eq!(service.get("/predictions/count").1["count"], ROWS + 20);
    assert_eq!(service.get("/markers?run=kill").1["count"], 1);
}

#[test]
fn nothing_is_lost_by_a_kill_under_load_and_the_outage_is_recorded() {
    let root = root();
    let service = Service::start(root.path());
    let mut options = LoadOptions::new(&service.url, "under-load");
    options.rate_per_second = 500;
    options.limit = PATIENCE;
    let (target, stop) = (options.base_url.clone(), options.stop.clone());
    let acknowledged = AtomicU64::new(0);
    let reach = |number| wait_for(|| (acknowledged.load(Ordering::Relaxed) >= number).then_some(()));

    let (report, found) = std::thread::scope(|scope| {
        let running = scope
            .spawn(|| load(&options, |number, _| acknowledged.store(number, Ordering::Relaxed)).unwrap());
        reach(30);
        service.kill();
        let service = Service::start(root.path());
        let before = acknowledged.load(Ordering::Relaxed);
        target.set(&service.url);
        reach(before + 30);
        stop.store(true, Ordering::Relaxed);
        let report = running.join().unwrap();
        let found = markers(&service.url, "under-load", PATIENCE).unwrap();
        for id in &report.prediction_ids {
            assert_eq!(service.get(&format!("/predictions/{id}")).0, 200);
        }
        (report, found)
    });
    assert_eq!(report.lost(&found).count(), 0);
    assert_eq!(found.missing, []);
    assert_eq!(report.outages.len(), 1, "{:?}", report.outages);
    let outage = &report.outages[0];
    assert!(outage.failed_requests > 0 && outage.duration().unwrap() > Duration::ZERO);
    let before = report.acknowledged.iter().filter(|marker| Some(marker.at) <= outage.last_ok).count();
    assert!((30..report.acknowledged.len()).contains(&before));
}
