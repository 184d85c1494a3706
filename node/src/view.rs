//! What the shell shows of the node: to clients ([`ServerView`]), to the pages and `paxosctl`
//! ([`NodeStatus`]), and to the admin socket.

use std::time::Duration;

use monitoring::status::{self, NodeStatus, StateHash};
use paxos::{Now, Role};
use std::sync::atomic::Ordering::Relaxed;

use crate::admin::{AdminCommand, AdminRequest, Refusal};
use crate::clients::SessionId;
use crate::clock;
use crate::command::{ConnectionState, Member, ServerView, User};
use crate::shell::Core;

/// The node as one client's command sees it.
pub struct View<'a> {
    pub core: &'a Core,
    pub session: SessionId,
    pub now: Now,
    pub cluster_uuid: String,
}

impl ServerView for View<'_> {
    fn cluster_uuid(&self) -> &str {
        &self.cluster_uuid
    }

    fn node_id(&self) -> u32 {
        self.core.identity.id.0
    }

    fn members(&self) -> Vec<Member> {
        let replica = &self.core.node.replica;
        let reachable = replica.peer_views(self.now);
        let configuration = self.core.node.configuration();
        let members = configuration.members.iter().map(|(id, member)| {
            let (host, port) = split_address(&member.client_address);
            let own = *id == self.core.identity.id;
            let heard = reachable.iter().any(|peer| peer.node == *id && peer.connected);
            Member {
                id: id.0,
                host,
                port,
                peer_port: split_address(&member.peer_address).1,
                reachable: own || heard,
            }
        });
        members.collect()
    }

    fn leader(&self) -> Option<u32> {
        self.core.node.replica.leader().map(|id| id.0).or(self.core.last_leader)
    }

    fn is_leader(&self) -> bool {
        self.core.node.replica.leading().is_some()
    }

    fn has_leader(&self) -> bool {
        self.core.node.replica.happy_with(self.now).is_some()
    }

    fn round(&self) -> u64 {
        self.core.node.replica.promised().round
    }

    fn chosen_slots(&self) -> u64 {
        self.core.node.replica.first_unchosen().0 - 1
    }

    fn is_loading(&self) -> bool {
        self.core.snapshots.is_installing()
    }

    fn users(&self) -> &[User] {
        &self.core.users
    }

    fn connections(&self) -> Vec<ConnectionState> {
        let mut connections: Vec<ConnectionState> =
            self.core.node.clients.iter().map(|(_, session)| session.connection.clone()).collect();
        connections.sort_by_key(|connection| connection.id);
        connections
    }

    fn connection_count(&self) -> usize {
        self.core.node.clients.len()
    }

    fn connections_max(&self) -> usize {
        self.core.config.behaviour.connections_max as usize
    }

    fn command_bytes_max(&self) -> usize {
        self.core.config.behaviour.command_bytes_max as usize
    }

    fn key_count(&self) -> usize {
        self.core.node.store.len()
    }

    fn expiring_count(&self) -> usize {
        self.core.node.store.expiring_count()
    }

    fn memory_bytes(&self) -> usize {
        self.core.node.store.memory_bytes()
    }

    fn memory_bytes_max(&self) -> u64 {
        self.core.config.behaviour.store_bytes_max
    }

    fn clients_bytes(&self) -> usize {
        self.core.node.clients.bytes()
    }

    fn clients_bytes_max(&self) -> u64 {
        self.core.config.behaviour.clients_bytes_max
    }

    fn clients_evicted(&self) -> u64 {
        self.core.metrics.client_evictions.get()
    }

    fn commands_processed(&self) -> u64 {
        self.core.commands_processed
    }

    fn connections_received(&self) -> u64 {
        self.core.connections_received
    }

    fn uptime(&self) -> Duration {
        self.core.published.uptime()
    }

    fn wall_clock(&self) -> Duration {
        Duration::from_millis(self.now.wall_ms)
    }

    fn followers_with_last_write(&self) -> usize {
        let Some(session) = self.core.node.clients.get(self.session) else { return 0 };
        let slot = session.last_write_slot;
        let peers = self.core.node.replica.peer_views(self.now);
        let told = peers.iter().filter(|peer| peer.first_unchosen.0 > slot).count();
        // A write that was answered is on the disks of a quorum, whoever has said so since.
        let certain = self.core.node.configuration().quorum_size() - 1;
        told.max(certain)
    }
}

/// host:port into its parts; IPv6 hosts lose their brackets, as Redis announces them.
fn split_address(address: &str) -> (String, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(0))
}

impl Core {
    /// Everything that the pages show.
    pub fn status(&mut self, now: Now) -> NodeStatus {
        let alone = self.look_for_company(now);
        let replica = &self.node.replica;
        let own = self.identity.id;
        let leading = replica.leading().is_some();
        let first_unchosen = replica.first_unchosen().0;
        let chosen_slot = first_unchosen - 1;
        let leader = replica.happy_with(now).map(|id| id.0);
        if leader.is_some() {
            self.last_leader = leader;
        }
        match (leader, self.leader_since) {
            (Some(leader), Some((known, _))) if known == leader => {}
            (Some(leader), _) => self.leader_since = Some((leader, now.mono_us)),
            (None, _) => self.leader_since = None,
        }
        let pending = replica.pending_count();
        if self.progress.0 != chosen_slot || pending == 0 {
            self.progress = (chosen_slot, now.mono_us);
        }
        self.chosen_history.record(now.mono_us, chosen_slot);
        let configuration = self.node.configuration();
        let peers: Vec<status::Peer> = replica
            .peer_views(now)
            .into_iter()
            .map(|peer| {
                let acked_slot = peer.first_unchosen.0.saturating_sub(1);
                let lag = |value: u64| if leading { value } else { 0 };
                status::Peer {
                    id: peer.node.0,
                    name: configuration
                        .members
                        .get(&peer.node)
                        .map_or_else(|| peer.node.to_string(), |member| member.name.clone()),
                    connected: peer.connected,
                    rtt_us: peer.round_trip_us,
                    acked_slot,
                    lag_slots: lag(chosen_slot.saturating_sub(acked_slot)),
                    lag_ms: lag(self.chosen_history.lag_us(now.mono_us, acked_slot) / 1_000),
                }
            })
            .collect();
        let highest_known_slot =
            peers.iter().map(|peer| peer.acked_slot).max().unwrap_or(0).max(chosen_slot);
        let sync = &self.syncer.state;
        let unsynced_us = sync.unsynced_us(now.mono_us);
        let can_accept_reason = if sync.is_full() {
            Some("the disk is full".to_owned())
        } else if unsynced_us >= 500_000 {
            Some(format!("a sync has taken {} ms so far", unsynced_us / 1_000))
        } else {
            None
        };
        let role = if !self.node.configuration().is_voter(self.identity.id) {
            status::Role::Learner
        } else if leading {
            status::Role::Leader
        } else if replica.preparing().is_some() {
            status::Role::Candidate
        } else {
            status::Role::Follower
        };
        let ballot = replica.leading().unwrap_or_else(|| replica.promised());
        let (disk_free_bytes, disk_total_bytes) = disk_bytes(&self.config.data_dir);
        NodeStatus {
            schema_version: status::SCHEMA_VERSION,
            cluster: self.config.cluster.clone(),
            cluster_uuid: self.identity.cluster.to_string(),
            name: self.config.name.clone(),
            id: own.0,
            version: crate::VERSION.to_owned(),
            git_sha: crate::GIT_SHA.to_owned(),
            role,
            leader,
            leader_contact_ms: leader.map(|_| replica.leader_silence_us(now) / 1_000),
            leader_for_ms: self.leader_since.map(|(_, at)| now.mono_us.saturating_sub(at) / 1_000),
            leader_changes: self.metrics.leader_changes.get(),
            ballot: status::Ballot {
                configuration: ballot.configuration,
                round: ballot.round,
                node: ballot.node.0,
            },
            configuration: status::Configuration {
                number: configuration.number,
                members: configuration
                    .members
                    .iter()
                    .map(|(id, member)| status::Member {
                        id: id.0,
                        name: member.name.clone(),
                        role: match member.role {
                            Role::Voter => status::MemberRole::Voter,
                            Role::Learner => status::MemberRole::Learner,
                        },
                        peer: member.peer_address.clone(),
                        client: member.client_address.clone(),
                        http: member.http_address.clone(),
                    })
                    .collect(),
                removed: configuration.removed.iter().map(|id| id.0).collect(),
                change_under_way: replica.change_is_under_way(),
                lease_ms: configuration.lease_terms.map(|terms| terms.lease_us / 1_000),
                drift_percent: configuration.lease_terms.map(|terms| terms.drift_percent),
                store_version: configuration.store_version,
            },
            first_unchosen,
            chosen_slot,
            applied_slot: self.node.first_unapplied().0 - 1,
            highest_known_slot,
            first_kept_slot: replica.first_kept().0,
            snapshot_slot: self.snapshots.newest_below().0 - 1,
            log_holes: replica.hole_count(),
            proposals_pending: pending,
            stalled_ms: now.mono_us.saturating_sub(self.progress.1) / 1_000,
            lease_remaining_us: self.node.replica.lease_remaining_us(now),
            peers,
            can_accept: can_accept_reason.is_none(),
            can_accept_reason,
            alone,
            journal_bytes: sync.journal_bytes.load(Relaxed),
            disk_free_bytes,
            disk_total_bytes,
            sync_p99_us: self.metrics.sync_p99_us(),
            state_hashes: self
                .node
                .state_hashes()
                .map(|(slot, hash)| StateHash { slot: slot.0, hash: format!("{hash:032x}") })
                .collect(),
            uptime_ms: self.published.uptime().as_millis() as u64,
            insecure: self.insecure(),
            chaos: self.chaos.kinds(),
            store_version_newest: replica.store_version_newest(),
            file_differs: self.file_differs(),
            time_ms: now.wall_ms,
            age_ms: 0,
        }
    }

    /// Every protection that is switched off, one word each; a read that may lie is one.
    fn insecure(&self) -> Vec<String> {
        let security = &self.config.security;
        let mut words = Vec::new();
        if security.peers == config::PeerSecurity::Plain {
            words.push("peers=plain".to_owned());
        }
        if security.clients == config::ClientSecurity::Open {
            words.push("clients=open".to_owned());
        }
        if self.config.behaviour.follower_reads == config::FollowerReads::Stale {
            words.push("follower_reads=stale".to_owned());
        }
        words
    }

    /// Carries out one request of the admin socket.
    pub fn administer(&mut self, request: AdminRequest) {
        let AdminRequest { command, reply } = request;
        if let AdminCommand::Member(command) = command {
            return self.administer_members(command, reply);
        }
        let now = clock::now();
        let answer = match command {
            AdminCommand::Transfer { to } => return self.transfer(now, to, reply),
            AdminCommand::Status => Ok(serde_json::json!(self.status(now))),
            AdminCommand::Members => Ok(serde_json::json!(self.status(now).configuration)),
            AdminCommand::Version => Ok(serde_json::json!({
                "version": crate::VERSION,
                "git_sha": crate::GIT_SHA,
                "wire": crate::wire::WIRE_VERSION,
            })),
            AdminCommand::LogLevel { filter } => {
                let set = (self.set_filter)(&filter).map_err(Refusal::for_good);
                set.map(|()| serde_json::json!({ "filter": filter }))
            }
            AdminCommand::Chaos(command) => self.inject(now, command).map_err(Refusal::for_good),
            AdminCommand::Member(_) => unreachable!("answered above"),
            AdminCommand::Stop => {
                self.leave(now);
                Ok(serde_json::json!({ "stopping": true }))
            }
        };
        // An asker that has gone away does not need the answer.
        let _ = reply.send(answer);
    }
}

/// Free and total bytes of the disk that holds `path`.
fn disk_bytes(path: &std::path::Path) -> (u64, u64) {
    match rustix::fs::statvfs(path) {
        Ok(stat) => (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize),
        Err(_) => (0, 0),
    }
}
