//! The packages `h2` and `hpack`, which take the RFCs by the letter: as a client, and as the oracle of
//! field blocks.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use pushline::proto::h2::hpack::encode::write_field;
use pushline::proto::h2::hpack::{Decoder, HpackError, Scratch};

use crate::common::{TestServer, await_subscribers, clients_dir, installed, publish, skip};

type Fields = Vec<(String, String)>;

/// A script of this folder; `None` after a skip.
fn script(name: &str, arguments: &[&str]) -> Option<(Child, BufReader<ChildStdout>)> {
    let packages = clients_dir().join("python");
    if installed("python3").is_none() || !packages.join("h2").exists() {
        skip("python3 and the package h2", "scripts/test-clients");
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/http2");
    let mut child = Command::new("python3")
        .arg(folder.join(name))
        .args(arguments)
        .env("PYTHONPATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    Some((child, output))
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

#[test]
fn pythons_h2_finds_no_fault_with_many_streams_and_small_windows() {
    const STREAMS: u64 = 50;
    let server = TestServer::start();
    let (awaited, published) = ("a".repeat(3_000), "p".repeat(60_000));
    let port = server.addr.port().to_string();
    let arguments = [&port, &STREAMS.to_string(), &awaited, &published];
    let Some((mut child, mut output)) = script("h2_client.py", &arguments.map(String::as_str))
    else {
        return;
    };
    assert_eq!(line(&mut output), "open");
    await_subscribers(server.addr, "c", STREAMS);
    assert_eq!(line(&mut output), "published");
    publish(server.addr, "c", &awaited);
    assert_eq!(line(&mut output), "all");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn field_blocks_mean_the_same_to_pythons_hpack() {
    const BLOCKS: usize = 500;
    let Some((mut child, mut output)) = script("field_blocks.py", &[&BLOCKS.to_string()]) else {
        return;
    };
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for _ in 0..BLOCKS {
        let told: (String, Fields) = serde_json::from_str(&line(&mut output)).expect("JSON");
        let (block, fields) = (unhex(&told.0), told.1);
        assert_eq!(decode(&mut decoder, &block), fields);
        all.push(fields);
    }
    let mut input = child.stdin.take().expect("it is piped");
    for fields in all {
        let mut block = Vec::new();
        fields.iter().for_each(|(n, v)| write_field(&mut block, n.as_bytes(), v.as_bytes()));
        let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(input, "{hex}").expect("python reads");
        let told: Fields = serde_json::from_str(&line(&mut output)).expect("JSON");
        assert_eq!(told, fields);
    }
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Fields {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let decoded = decoder.decode(block, &mut Scratch::default(), |name, value| {
        fields.push((text(name), text(value)));
        Ok::<(), HpackError>(())
    });
    decoded.expect("a block");
    fields
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
