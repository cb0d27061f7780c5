//! The containers that are kept ready: made for a pool, given to a run, replaced.

use super::{Entry, Mode, PoolId, Registry, RegistryEffect, Role, StartOutcome};
use crate::ready::{PoolEffect, PoolEvent};
use crate::{Cancel, ContainerId, Refusal};

impl Registry {
    pub(super) fn keep_ready(&mut self, pool: PoolId, count: usize) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.mode != Mode::Open {
            return Err(Refusal::Draining);
        }
        self.pools.entry(pool).or_default();
        self.on_pool(pool, PoolEvent::Want(count))
    }

    /// A pool takes one event. It is forgotten when it is over.
    pub(super) fn on_pool(&mut self, id: PoolId, event: PoolEvent) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(pool) = self.pools.get_mut(&id) else { return Ok(Vec::new()) };
        let effects = pool.step(event).map_err(|refused| refused.reason)?;
        let is_over = pool.is_over();
        let mut registry_effects = Vec::new();
        for effect in effects {
            registry_effects.push(self.pool_effect(id, effect));
        }
        registry_effects.push(RegistryEffect::PoolChanged(id));
        if is_over {
            self.pools.remove(&id);
        }
        Ok(registry_effects)
    }

    pub(super) fn pool_effect(&mut self, pool: PoolId, effect: PoolEffect) -> RegistryEffect {
        match effect {
            PoolEffect::Create => RegistryEffect::Make(pool),
            PoolEffect::Give(id, token) => {
                let role = Role::Given { pool, is_unclaimed: false };
                self.containers.insert(id.clone(), Entry { token: Some(token), role, is_lost: false });
                RegistryEffect::Give(id, token)
            }
            PoolEffect::End(id) => {
                if let Some(entry) = self.containers.get_mut(&id) {
                    entry.role = Role::Ordinary;
                }
                RegistryEffect::End(id, Cancel::now())
            }
        }
    }

    pub(super) fn made(&mut self, pool: PoolId, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.containers.contains_key(&id) {
            return Err(Refusal::IdTaken);
        }
        self.containers.insert(id.clone(), Entry { token: None, role: Role::Making(pool), is_lost: false });
        match self.mode {
            Mode::Open => Ok(Vec::new()),
            Mode::Draining | Mode::Ending | Mode::Stopped => Ok(vec![RegistryEffect::End(id, Cancel::now())]),
        }
    }

    pub(super) fn ready_created(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let Role::Making(pool) = entry.role else { return Err(Refusal::Stale) };
        entry.role = Role::Ready(pool);
        self.on_pool(pool, PoolEvent::Created(id))
    }

    pub(super) fn ready_died(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let (pool, event) = match entry.role {
            Role::Making(pool) => (pool, PoolEvent::CreateFailed(Some(id))),
            Role::Ready(pool) => (pool, PoolEvent::Dead(id)),
            Role::Ordinary | Role::Given { .. } | Role::Beginning(_) => return Err(Refusal::Stale),
        };
        entry.role = Role::Ordinary;
        self.on_pool(pool, event)
    }

    pub(super) fn given_started(
        &mut self,
        id: ContainerId,
        outcome: StartOutcome,
    ) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let (Role::Given { pool, is_unclaimed }, Some(token)) = (entry.role, entry.token) else {
            return Err(Refusal::Stale);
        };
        if outcome == StartOutcome::Started {
            entry.role = Role::Beginning(pool);
            return Ok(vec![RegistryEffect::Answer(id, token)]);
        }
        entry.role = Role::Ordinary;
        let never_began = outcome == StartOutcome::NeverStarted;
        let is_retried = never_began && !is_unclaimed && self.mode == Mode::Open;
        let mut effects = Vec::new();
        if is_retried {
            // The dead container does not belong to the run any more, and none of its events is published.
            entry.token = None;
            effects.push(RegistryEffect::End(id, Cancel::now()));
        } else {
            effects.push(RegistryEffect::Answer(id, token));
        }
        let pool_event = if never_began { PoolEvent::NeverStarted } else { PoolEvent::Begun };
        effects.extend(self.on_pool(pool, pool_event)?);
        if is_retried {
            effects.push(RegistryEffect::Retry(token));
        }
        Ok(effects)
    }

    pub(super) fn first_moments_over(&mut self, id: &ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(id) else { return Err(Refusal::Stale) };
        let Role::Beginning(pool) = entry.role else { return Err(Refusal::Stale) };
        entry.role = Role::Ordinary;
        self.on_pool(pool, PoolEvent::Begun)
    }
}
