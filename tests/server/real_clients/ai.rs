//! The AI SDK (npm `ai`), unchanged, and the tests of the npm package `resumable-stream` with our
//! drop-in in its place.

use std::fs;
use std::process::Command;

use pushline::proto::path_map::PathMap;
use serde_json::Value;

use super::runs;
use crate::common::{TestServer, clients_dir, folder_of_script, skip, skip_anywhere};

const TOKENS: usize = 5000;

#[test]
fn use_chat_resumes_in_the_middle_of_an_answer() {
    if !runs("node") || !clients_dir().join("node_modules/ai").exists() {
        return skip("node and the npm package ai", "scripts/test-clients");
    }
    let server = TestServer::with(|of| {
        let map = PathMap::parse("/api/chat/{id}/stream=chat:{id}").expect("a mapping");
        of.stream_paths = vec![map];
    });
    let folder = folder_of_script(include_str!("ai.mjs"));
    let url = format!("http://{}", server.addr);
    let said = Command::new("node")
        .arg(folder.path().join("script.mjs"))
        .args([&url, &TOKENS.to_string()])
        .output()
        .expect("node runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).expect("text");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let before = lines.next().expect("a line");
    assert_eq!(before["messages"], 1, "nothing to resume");
    let after = lines.next().expect("a second one");
    assert_eq!((&after["status"], &after["state"]), (&"ready".into(), &"done".into()), "{after}");
    let expected: String = (0..TOKENS).map(|n| format!("{n} ")).collect();
    assert_eq!(after["text"], expected, "nothing missing, nothing twice");
}

#[test]
fn the_tests_of_resumable_stream_pass_with_the_drop_in() {
    let suite = clients_dir().join("resumable-stream");
    let tests = suite.join("src/__tests__/tests.ts");
    let vitest = clients_dir().join("node_modules/.bin/vitest");
    if !runs("node") || !vitest.exists() {
        return skip("vitest", "scripts/test-clients");
    }
    // They are not in the package, and not every machine reaches its repository.
    if !tests.exists() {
        return skip_anywhere("the sources of resumable-stream", "scripts/test-clients");
    }
    if rustix::fs::access(&suite, rustix::fs::Access::WRITE_OK).is_err() {
        return skip(
            "sources of resumable-stream that this user may change",
            "scripts/test-clients",
        );
    }
    let server = TestServer::start();
    let write = |path: &str, text: &str| fs::write(suite.join(path), text).expect("it is written");
    write("src/resumable-stream.js", include_str!("../../../src/web/resumable-stream.js"));
    write(
        "src/index.ts",
        "import { createResumableStreamContext as ours } from './resumable-stream.js';\n\
         export type * from './types';\n\
         export const createResumableStreamContext = (options: object) =>\n\
           ours({ ...options, url: process.env.PUSHLINE_URL });\n",
    );
    write("src/ioredis.ts", "export * from './index';\n");
    write(
        "src/__tests__/pushline.test.ts",
        "import { resumableStreamTests } from './tests';\n\
         resumableStreamTests(() => ({ subscriber: undefined, publisher: undefined }), 'redis');\n",
    );
    let ran = Command::new(vitest)
        // Its own five seconds for a test are too few for a slow machine.
        .args(["run", "--testTimeout", "60000", "--root"])
        .arg(&suite)
        .arg("src/__tests__/pushline.test.ts")
        .env("PUSHLINE_URL", format!("http://{}", server.addr))
        .output()
        .expect("vitest runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
