//! Each fault against the ledger: what it promises is what was executed.

use std::time::Duration;

use serde_json::json;

use super::kit::{
    Receiver, executed, expect, options, refused, rig, rig_with, send, until, withdrawal,
};
use crate::simulator::{Fault, Faults, Operation, Options, Rule};

const PATH: &str = "withdrawal/crypto";

#[tokio::test]
async fn refused_requests_and_errors_before_acting_execute_nothing() {
    for (fault, status) in [
        (Fault::Refuse, Some(400)),
        (Fault::ErrorBeforeActing, Some(500)),
        (Fault::TooManyRequests, Some(429)),
        (Fault::DropRequest, None),
    ] {
        let rig = rig_with(fault).await;
        let reply = send(&rig, PATH, &withdrawal("w-1")).await;
        assert_eq!(reply.map(|(status, _)| status), status, "{fault:?}");
        assert!(executed(&rig, "w-1").is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn dropped_and_spoilt_answers_executed_exactly_once() {
    for (fault, status) in [
        (Fault::DropAnswer, None),
        (Fault::ActThenBadGateway, Some(502)),
        (Fault::ActThenRubbish, Some(200)),
    ] {
        let rig = rig_with(fault).await;
        let reply = send(&rig, PATH, &withdrawal("w-1")).await;
        if let Some((_, body)) = &reply {
            assert!(
                serde_json::from_str::<serde_json::Value>(body).is_err(),
                "{body}"
            );
        }
        assert_eq!(reply.map(|(status, _)| status), status, "{fault:?}");
        let ledger = executed(&rig, "w-1");
        assert_eq!(
            (ledger.len(), ledger[0].times_requested),
            (1, 1),
            "{fault:?}"
        );
        rig.control.set_faults(Faults::default());
        refused(&rig, PATH, &withdrawal("w-1"), "foreign_id").await;
        assert_eq!(executed(&rig, "w-1").len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_delayed_request_takes_effect_although_the_client_has_gone() {
    let rig = rig_with(Fault::Delay(500)).await;
    let body = withdrawal("w-1");
    let request = send(&rig, PATH, &body);
    let gave_up = tokio::time::timeout(Duration::from_millis(250), request).await;
    assert!(gave_up.is_err());
    assert!(executed(&rig, "w-1").is_empty());
    until("executed after all", || executed(&rig, "w-1").len() == 1).await;
}

#[tokio::test]
async fn a_slow_answer_comes_after_the_execution() {
    let rig = rig_with(Fault::SlowAnswer(60_000)).await;
    let body = withdrawal("w-1");
    let request = send(&rig, PATH, &body);
    let executed_meanwhile = until("executed", || executed(&rig, "w-1").len() == 1);
    tokio::select! {
        reply = request => panic!("answered too early: {reply:?}"),
        () = executed_meanwhile => {}
    }
}

#[tokio::test]
async fn a_blind_lookup_overlooks_young_withdrawals_only() {
    let rig = rig_with(Fault::BlindLookup(600)).await;
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    let question = json!({"foreign_id": "w-1"});
    expect(&rig, "transactions/info", &question, 404).await;
    assert_eq!(executed(&rig, "w-1").len(), 1);
    tokio::time::sleep(Duration::from_millis(610)).await;
    expect(&rig, "transactions/info", &question, 200).await;
}

#[tokio::test]
async fn a_repeat_is_executed_twice_when_the_gateway_is_made_to_forget() {
    let rig = rig_with(Fault::ExecuteRepeat).await;
    for _ in 0..2 {
        expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    }
    let ledger = executed(&rig, "w-1");
    assert_eq!((ledger.len(), ledger[1].times_requested), (2, 2));
    assert_ne!(ledger[0].id, ledger[1].id);
}

#[tokio::test]
async fn the_next_so_many_requests_of_an_operation_can_be_hit() {
    let rig = rig_with(Fault::Refuse).await;
    rig.control.set_faults(Faults(vec![Rule {
        operation: Some(Operation::Withdrawal),
        times: Some(2),
        ..Rule::always(Fault::DropAnswer)
    }]));
    expect(&rig, "accounts/list", &json!({}), 200).await;
    for n in 0..4 {
        let reply = send(&rig, PATH, &withdrawal(&format!("w-{n}"))).await;
        assert_eq!(reply.is_none(), n < 2, "{n}");
    }
    assert_eq!(rig.control.executions().len(), 4);
}

#[tokio::test]
async fn the_same_seed_hits_the_same_withdrawals() {
    let mut hits = Vec::new();
    for _ in 0..2 {
        let rig = rig(Options {
            seed: 42,
            faults: Faults(vec![Rule {
                per_mille: Some(400),
                ..Rule::always(Fault::DropAnswer)
            }]),
            ..options()
        })
        .await;
        let mut lost = Vec::new();
        for n in 0..20 {
            if send(&rig, PATH, &withdrawal(&format!("w-{n}")))
                .await
                .is_none()
            {
                lost.push(n);
            }
        }
        assert_eq!(rig.control.executions().len(), 20);
        hits.push(lost);
    }
    assert_eq!(hits[0], hits[1]);
    assert!((1..20).contains(&hits[0].len()), "{hits:?}");
}

#[tokio::test]
async fn sixteen_in_flight_are_not_held_up_by_each_other() {
    let rig = rig_with(Fault::SlowAnswer(60_000)).await;
    let bodies: Vec<_> = (0..16).map(|n| withdrawal(&format!("w-{n}"))).collect();
    let mut requests = tokio::task::JoinSet::new();
    let rig = std::sync::Arc::new(rig);
    for body in bodies {
        let rig = std::sync::Arc::clone(&rig);
        requests.spawn(async move { send(&rig, PATH, &body).await });
    }
    until("all executed while none is answered", || {
        rig.control.executions().len() == 16
    })
    .await;
    assert!(requests.try_join_next().is_none());
}

/// Statuses and genuineness of what arrives for one confirmed withdrawal under a fault.
async fn callbacks_under(fault: Fault, count: usize) -> Vec<(String, bool)> {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig_with(fault).await;
    rig.control.set_callback_url(Some(url));
    if fault == Fault::CallbackReordered {
        // Only the first one is held.
        let times = Some(1);
        let rule = Rule::always(fault);
        rig.control.set_faults(Faults(vec![Rule { times, ..rule }]));
    }
    expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    rig.control.settle("w-1", "pending").unwrap();
    rig.control.settle("w-1", "confirmed").unwrap();
    let all = receiver.wait_for(count).await;
    assert_eq!(executed(&rig, "w-1").len(), 1);
    let pairs = all.iter().map(|c| (c.status().to_owned(), c.genuine));
    pairs.collect()
}

#[tokio::test]
async fn callbacks_come_twice() {
    let mut all = callbacks_under(Fault::CallbackTwice, 4).await;
    all.sort();
    let statuses: Vec<_> = all.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["confirmed", "confirmed", "pending", "pending"]);
}

#[tokio::test]
async fn callbacks_overtake_each_other() {
    let all = callbacks_under(Fault::CallbackReordered, 2).await;
    let statuses: Vec<_> = all.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["confirmed", "pending"]);
}

#[tokio::test]
async fn forged_callbacks_come_beside_the_real_ones() {
    let all = callbacks_under(Fault::CallbackForged, 4).await;
    for status in ["pending", "confirmed"] {
        let seen = all.iter().filter(|(s, _)| s == status);
        let genuine: Vec<bool> = seen.map(|(_, genuine)| *genuine).collect();
        assert_eq!(genuine, [false, true], "{status}");
    }
}

#[tokio::test]
async fn late_callbacks_wait_and_lost_ones_never_come() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some(url),
        faults: Faults(vec![
            Rule {
                prefix: Some("late".to_owned()),
                ..Rule::always(Fault::CallbackLate(1_000))
            },
            Rule {
                prefix: Some("lost".to_owned()),
                ..Rule::always(Fault::CallbackNever)
            },
        ]),
        ..options()
    })
    .await;
    for foreign_id in ["late-1", "lost-1", "plain-1"] {
        expect(&rig, PATH, &withdrawal(foreign_id), 201).await;
    }
    let all = receiver.wait_for(2).await;
    let order: Vec<_> = all
        .iter()
        .map(|c| c.body["foreign_id"].as_str().unwrap())
        .collect();
    assert_eq!(order, ["plain-1", "late-1"]);
    let lost = rig.control.callbacks();
    let lost = lost.iter().find(|c| c.foreign_id == "lost-1").unwrap();
    assert!(lost.attempts.is_empty() && !lost.delivered);
    assert_eq!(executed(&rig, "lost-1")[0].status, "confirmed");
}

#[tokio::test]
async fn a_callback_can_come_before_the_reply() {
    let (receiver, url) = Receiver::start(&[]).await;
    let rig = rig(Options {
        callback_url: Some(url),
        faults: Faults(vec![Rule::always(Fault::CallbackBeforeReply)]),
        settle_after: None,
        ..options()
    })
    .await;
    let reply = expect(&rig, PATH, &withdrawal("w-1"), 201).await;
    assert_eq!(reply["data"]["status"], "processing");
    assert_eq!(receiver.statuses(), ["confirmed"]);
}
