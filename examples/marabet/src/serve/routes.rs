//! The routes. Each answer is JSON; an error is `{"error", "code"}` with the status that fits its kind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::request_log::{Line, RequestLog};
use crate::config::Config;
use crate::model::{self, ModelSlot};
use crate::store::{MarkerSummary, NewPrediction, Prediction, PredictionStore};

/// Requests that may wait for the disk at once; more are refused with 503, so that no queue grows without end.
const MAX_WAITING: usize = 128;
/// How many predictions `/predictions` lists when it isn't told.
const DEFAULT_LIST: u32 = 20;
/// The longest name of a run, in bytes.
const MAX_RUN_BYTES: usize = 64;

/// What the routes work with.
pub(super) struct App {
    config: Config,
    models: PathBuf,
    model: ModelSlot,
    store: Box<dyn PredictionStore>,
    log: RequestLog,
    waiting: Arc<Semaphore>,
}

impl App {
    pub(super) fn new(
        config: Config,
        models: PathBuf,
        model: ModelSlot,
        store: Box<dyn PredictionStore>,
        log: RequestLog,
    ) -> Self {
        Self { config, models, model, store, log, waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Reads the model into memory. One that is missing or damaged is `/healthz`'s to tell, not an error here.
    pub(super) async fn load_model(self: &Arc<Self>) -> Result<()> {
        self.blocking(|app| Ok(app.model.check().is_ok())).await.map(drop)
    }

    /// Runs what blocks on the disk in a thread for that.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| {
            let message = format!("{MAX_WAITING} requests are waiting already");
            Error::new(ErrorKind::Unavailable, codes::SAMPLE_REQUEST, message)
        })?;
        let app = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || {
            let result = work(&app);
            drop(permit);
            result
        });
        running.await.map_err(|error| Error::internal(format!("a request's thread ended: {error}")))?
    }
}

/// All routes over `app`, with a log line for each request.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/model", get(describe_model))
        .route("/predict", post(predict))
        .route("/predictions", get(list_predictions))
        .route("/predictions/count", get(count_predictions))
        .route("/predictions/{id}", get(one_prediction))
        .route("/marker", post(add_marker))
        .route("/markers", get(list_markers))
        .fallback(async || Failure(not_found("no such route".to_owned())))
        .layer(from_fn_with_state(Arc::clone(&app), log_request))
        .with_state(app)
}

async fn log_request(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    app.log.write(&Line::now(method.as_str(), &path, response.status().as_u16(), started.elapsed()));
    response
}

#[derive(Deserialize)]
struct HealthQuery {
    /// Read all of the database and all models; takes seconds.
    #[serde(default)]
    deep: bool,
}

async fn healthz(
    State(app): State<Arc<App>>,
    query: Result<Query<HealthQuery>, QueryRejection>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let deep = query.map_err(rejected)?.0.deep;
    let checked = app.blocking(move |app| {
        let model = app.model.check().and_then(|model| {
            if deep { model::check_folder(&app.models).map(|()| model) } else { Ok(model) }
        });
        let database = if deep { app.store.check_deep() } else { app.store.check() };
        Ok((model, database))
    });
    Ok(match checked.await {
        Ok((Ok(model), Ok(()))) => {
            let mut answer = health(&app, &[]);
            answer["model_version"] = model.version().into();
            (StatusCode::OK, Json(answer))
        }
        Ok((model, database)) => {
            let model = model.as_ref().err().map(|error| ("model", error));
            let database = database.as_ref().err().map(|error| ("database", error));
            let reasons: Vec<_> = database.into_iter().chain(model).collect();
            (StatusCode::SERVICE_UNAVAILABLE, Json(health(&app, &reasons)))
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, Json(health(&app, &[("service", &error)]))),
    })
}

/// The answer of `/healthz`: healthy when there is no reason against it.
fn health(app: &App, reasons: &[(&str, &Error)]) -> Value {
    let reasons: Vec<Value> = reasons
        .iter()
        .map(|(check, error)| json!({"check": check, "code": error.code().as_str(), "reason": error.to_string()}))
        .collect();
    json!({
        "service": app.config.name,
        "healthy": reasons.is_empty(),
        "reasons": reasons,
        "log_lines_lost": app.log.lost(),
    })
}

async fn describe_model(State(app): State<Arc<App>>) -> Answer {
    let model = app.blocking(|app| app.model.model()).await?;
    Ok(Json(json!({
        "name": app.config.model, "version": model.version(), "features": model.features(), "heads": model.heads(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredictBody {
    features: Vec<f32>,
    #[serde(default)]
    user_id: Option<i64>,
}

async fn predict(State(app): State<Arc<App>>, body: Result<Json<PredictBody>, JsonRejection>) -> Answer {
    let PredictBody { features, user_id } = body.map_err(rejected)?.0;
    if !features.iter().all(|feature| feature.is_finite()) {
        return Err(Failure(invalid("each feature must be a finite number".to_owned())));
    }
    let answer = app.blocking(move |app| {
        let model = app.model.model()?;
        let score = model.score(&features).ok_or_else(|| {
            invalid(format!("{} features were sent, the model takes {}", features.len(), model.features()))
        })?;
        let model_version = model.version();
        let id = app.store.add_prediction(&NewPrediction { user_id, model_version, score, features })?;
        Ok(json!({"id": id, "score": score, "model_version": model_version}))
    });
    Ok(Json(answer.await?))
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<u32>,
}

async fn list_predictions(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<Prediction>>, Failure> {
    let limit = query.map_err(rejected)?.0.limit.unwrap_or(DEFAULT_LIST).min(app.config.list_limit);
    Ok(Json(app.blocking(move |app| app.store.latest_predictions(limit)).await?))
}

async fn count_predictions(State(app): State<Arc<App>>) -> Answer {
    Ok(Json(json!({"count": app.blocking(|app| app.store.count_predictions()).await?})))
}

async fn one_prediction(
    State(app): State<Arc<App>>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<Prediction>, Failure> {
    let Path(id) = id.map_err(rejected)?;
    let found = app.blocking(move |app| app.store.prediction(id)).await?;
    found.map(Json).ok_or_else(|| Failure(not_found(format!("there is no prediction {id}"))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkerBody {
    run: String,
    number: u64,
}

async fn add_marker(State(app): State<Arc<App>>, body: Result<Json<MarkerBody>, JsonRejection>) -> Answer {
    let MarkerBody { run, number } = body.map_err(rejected)?.0;
    check_run(&run)?;
    if number == 0 || i64::try_from(number).is_err() {
        return Err(Failure(invalid(format!("marker {number} is not from 1 to {}", i64::MAX))));
    }
    let answer = app.blocking(move |app| {
        app.store.add_marker(&run, number)?;
        Ok(json!({"run": run, "number": number}))
    });
    Ok(Json(answer.await?))
}

#[derive(Deserialize)]
struct MarkersQuery {
    run: String,
}

async fn list_markers(
    State(app): State<Arc<App>>,
    query: Result<Query<MarkersQuery>, QueryRejection>,
) -> Result<Json<MarkerSummary>, Failure> {
    let run = query.map_err(rejected)?.0.run;
    check_run(&run)?;
    Ok(Json(app.blocking(move |app| app.store.markers(&run)).await?))
}

fn check_run(run: &str) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !run.is_empty() && run.len() <= MAX_RUN_BYTES && run.bytes().all(fits) {
        return Ok(());
    }
    let message = format!("a run is 1 to {MAX_RUN_BYTES} letters, digits, `.`, `_` or `-`");
    Err(Failure(invalid(message)))
}

/// A request that axum could not read.
fn rejected(reason: impl std::fmt::Display) -> Failure {
    Failure(invalid(reason.to_string()))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, codes::SAMPLE_REQUEST, message)
}

fn not_found(message: String) -> Error {
    Error::new(ErrorKind::NotFound, codes::SAMPLE_REQUEST, message)
}

type Answer = Result<Json<Value>, Failure>;

/// An error as an answer.
#[derive(Debug)]
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = json!({"error": self.0.to_string(), "code": self.0.code().as_str()});
        (status, Json(body)).into_response()
    }
}
