//! A worker that breaks the contract is stopped at once, not three turns later.

use super::Rig;
use crate::ring::sim::Faults;
use crate::ring::{BufferId, Completion, Driver, Op, Token};

fn send(token: Token) -> Op {
    Op::Send { token, from: 0, to: 1 }
}

#[test]
#[should_panic(expected = "RecvStart(Token { slot: 0, generation: 1 }) while receiving is armed")]
fn receiving_twice() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    rig.turn(&[Op::RecvStart(token)]);
}

#[test]
#[should_panic(expected = "while receiving is armed")]
fn receiving_again_before_the_stop_took_effect() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    rig.turn(&[Op::RecvStop(token), Op::RecvStart(token)]);
}

#[test]
#[should_panic(expected = "AcceptStart while accepting is armed")]
fn accepting_twice() {
    let mut rig = Rig::new(Faults::none());
    rig.turn(&[Op::AcceptStart, Op::AcceptStart]);
}

#[test]
#[should_panic(expected = "closed or never accepted")]
fn an_op_behind_a_close() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::Close(token), Op::RecvStart(token)]);
}

#[test]
#[should_panic(expected = "closed or never accepted")]
fn an_op_on_a_slot_that_was_never_accepted() {
    let mut rig = Rig::new(Faults::none());
    rig.turn(&[Op::Close(Token { slot: 1, generation: 0 })]);
}

#[test]
#[should_panic(expected = "only 2 slots")]
fn an_op_on_a_slot_that_does_not_exist() {
    let mut rig = Rig::new(Faults::none());
    rig.turn(&[Op::Close(Token { slot: 2, generation: 0 })]);
}

#[test]
#[should_panic(expected = "of another generation")]
fn an_op_of_another_generation() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    rig.turn(&[Op::PollOut(Token { generation: token.generation + 1, ..token })]);
}

#[test]
#[should_panic(expected = "generation used before")]
fn an_op_of_the_former_life() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::Close(token)]);
    let (_next, _) = rig.accept();
    rig.turn(&[Op::RecvStart(token)]);
}

#[test]
#[should_panic(expected = "tear the stream")]
fn two_sends_in_a_batch() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.batch.arena = vec![0];
    rig.turn(&[send(token), send(token)]);
}

#[test]
#[should_panic(expected = "arena has 0")]
fn a_send_from_outside_of_the_arena() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[send(token)]);
}

#[test]
#[should_panic(expected = "an empty send")]
fn an_empty_send() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::Send { token, from: 0, to: 0 }]);
}

#[test]
#[should_panic(expected = "after its Shutdown")]
fn a_send_behind_a_shutdown() {
    let (mut rig, _client, token) = Rig::with_client(Faults::none());
    rig.batch.arena = vec![0];
    rig.turn(&[Op::Shutdown(token), send(token)]);
}

#[test]
#[should_panic(expected = "recycled, but not lent")]
fn a_buffer_given_back_twice() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    client.write(b"ab");
    let completions = rig.turn(&[Op::RecvStart(token)]);
    let [Completion::Received { buffer, .. }] = completions[..] else { return };
    rig.driver.recycle(buffer);
    rig.driver.recycle(buffer);
}

#[test]
#[should_panic(expected = "read, but not lent")]
fn a_buffer_read_after_it_was_given_back() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    client.write(b"ab");
    let completions = rig.turn(&[Op::RecvStart(token)]);
    rig.bytes_of(&completions);
    rig.bytes_of(&completions);
}

#[test]
#[should_panic(expected = "no such buffer")]
fn a_buffer_nobody_ever_lent() {
    let mut rig = Rig::new(Faults::none());
    rig.driver.recycle(BufferId(2));
}
