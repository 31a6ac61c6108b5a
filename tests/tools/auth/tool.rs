//! `pushline token`: what it makes is accepted, and what would be refused is not made.

use clap::Parser;
use pushline::auth::AuthFault;
use pushline::auth::cli::{TokenArgs, TokenError, sign};

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: TokenArgs,
}

fn run(line: &str) -> Result<String, TokenError> {
    let args = Command::try_parse_from(line.split_whitespace()).expect("arguments").args;
    let env = |name: &str| (name == "PUSHLINE_SECRET").then(|| SECRET.to_owned());
    sign(&args, &env, NOW)
}

#[test]
fn a_token_that_was_made_is_taken() {
    let gate = hmac_gate("audience = ['push']\nissuer = ['dev']");
    let token = run("token --subscribe user:4:* --subscribe news --publish chat --subject jane \
                     --audience push --issuer dev --expires-in 30s --kid any")
    .expect("a token");
    let grant = bearer(&gate, &token).expect("a good token");
    assert!(grant.may_subscribe("user:4:x") && grant.may_subscribe("news"));
    assert!(grant.may_publish("chat") && !grant.may_publish("news"));
    assert_eq!(grant.subject(), Some("jane"));
    assert_eq!(grant.expires_at_unix_s(), Some(NOW + 30 + 5));
}

#[test]
fn a_token_that_would_be_refused_is_not_made() {
    let pattern = run("token --subscribe user:4*");
    assert!(matches!(pattern, Err(TokenError::Pattern("--subscribe", _))));
    let secret = |line| match run(line) {
        Err(TokenError::Secret(error)) => Some(error.fault),
        _ => None,
    };
    assert_eq!(secret("token --secret-env ABSENT"), Some(AuthFault::EnvMissing));
    let pem = format!("token --secret-file {}", key_file("rsa_public.pem"));
    assert_eq!(secret(&pem), Some(AuthFault::SecretIsPublicKey));
}
