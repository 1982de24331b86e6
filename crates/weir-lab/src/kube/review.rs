//! Whose token is this?

use std::time::SystemTime;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{bad_request, failed, whole};
use super::body::Said;
use super::state::Shared;
use super::{Fault, TokenIdentity};

pub(super) const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Who is meant when a review asks for nobody.
const API_SERVER: &str = "https://kubernetes.default.svc.cluster.local";

pub(super) fn answer(asked: &[u8], shared: &Shared) -> Response<Said> {
    let Ok(mut review) = serde_json::from_slice::<Value>(asked) else {
        return bad_request("the body is not JSON");
    };
    let Some(token) = review["spec"]["token"].as_str().map(str::to_owned) else {
        return bad_request("TokenReview without spec.token");
    };
    let audiences: Vec<String> = match review["spec"]["audiences"].as_array() {
        Some(named) => named.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => vec![API_SERVER.to_owned()],
    };
    let (identity, fails, ignores) = shared.note(|state| {
        state.reviews += 1;
        let has = |fault| state.faults.contains(&fault);
        let (fails, ignores) = (has(Fault::ReviewsFail), has(Fault::AudiencesIgnored));
        (state.tokens.get(&token).cloned(), fails, ignores)
    });
    if fails {
        return failed("the lab refuses to review tokens");
    }
    review["status"] = status(identity.as_ref(), &audiences, ignores);
    whole(StatusCode::CREATED, review.to_string().into())
}

fn status(identity: Option<&TokenIdentity>, asked: &[String], ignores: bool) -> Value {
    let Some(identity) = identity else { return rejected("invalid bearer token") };
    if identity.expires.is_some_and(|expires| expires <= SystemTime::now()) {
        return rejected("invalid bearer token, service account token has expired");
    }
    let both: Vec<&String> =
        asked.iter().filter(|audience| identity.audiences.contains(audience)).collect();
    if both.is_empty() && !ignores {
        return rejected(&format!(
            "invalid bearer token, token audiences {:?} is invalid for the target audiences {asked:?}",
            identity.audiences
        ));
    }
    let mut extra = json!({});
    if let Some(node) = &identity.node {
        extra["authentication.kubernetes.io/node-name"] = json!([node]);
    }
    if let Some((name, uid)) = &identity.pod {
        extra["authentication.kubernetes.io/pod-name"] = json!([name]);
        extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
    }
    let user = json!({ "username": identity.username, "uid": "1", "extra": extra,
        "groups": ["system:serviceaccounts", "system:authenticated"] });
    let mut status = json!({ "authenticated": true, "user": user });
    if !ignores {
        status["audiences"] = json!(both);
    }
    status
}

fn rejected(error: &str) -> Value {
    json!({ "authenticated": false, "user": {}, "error": error })
}
