//! The containers that are kept ready: made for a pool, given to a run, replaced.

use super::{Entry, Fared, Mode, PoolId, Registry, RegistryEffect, Role};
use crate::ready::{Pool, PoolEffect, PoolEvent};
use crate::{Cancel, ContainerId, Refusal};

impl Registry {
    pub(super) fn keep_ready(&mut self, pool: PoolId, count: usize) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.mode != Mode::Open {
            return Err(Refusal::Draining);
        }
        self.pools.entry(pool).or_default();
        self.on_pool(pool, PoolEvent::Want(count))
    }

    /// Lets a pool take its step, and forgets it when it is over.
    pub(super) fn on_pool(&mut self, id: PoolId, event: PoolEvent) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(pool) = self.pools.get_mut(&id) else { return Ok(Vec::new()) };
        let effects = pool.step(event).map_err(|refused| refused.reason)?;
        let mut all: Vec<_> = effects.into_iter().map(|effect| self.of_pool(id, effect)).collect();
        all.push(RegistryEffect::PoolChanged(id));
        if self.pools.get(&id).is_some_and(Pool::is_over) {
            self.pools.remove(&id);
        }
        Ok(all)
    }

    pub(super) fn of_pool(&mut self, pool: PoolId, effect: PoolEffect) -> RegistryEffect {
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

    pub(super) fn stood(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let Role::Making(pool) = entry.role else { return Err(Refusal::Stale) };
        entry.role = Role::Ready(pool);
        self.on_pool(pool, PoolEvent::Created(id))
    }

    pub(super) fn fell(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let (pool, event) = match entry.role {
            Role::Making(pool) => (pool, PoolEvent::CreateFailed(Some(id))),
            Role::Ready(pool) => (pool, PoolEvent::Dead(id)),
            Role::Ordinary | Role::Given { .. } | Role::Beginning(_) => return Err(Refusal::Stale),
        };
        entry.role = Role::Ordinary;
        self.on_pool(pool, event)
    }

    pub(super) fn fared(&mut self, id: ContainerId, fared: Fared) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let (Role::Given { pool, is_unclaimed }, Some(token)) = (entry.role, entry.token) else {
            return Err(Refusal::Stale);
        };
        if fared == Fared::Began {
            entry.role = Role::Beginning(pool);
            return Ok(vec![RegistryEffect::Answer(id, token)]);
        }
        entry.role = Role::Ordinary;
        let again = fared == Fared::NeverBegan && !is_unclaimed && self.mode == Mode::Open;
        let mut effects = if again {
            // It is not the run's any more, and nothing is published of it.
            entry.token = None;
            vec![RegistryEffect::End(id, Cancel::now())]
        } else {
            vec![RegistryEffect::Answer(id, token)]
        };
        let never = fared == Fared::NeverBegan;
        effects.extend(self.on_pool(pool, if never { PoolEvent::NeverBegan } else { PoolEvent::Begun })?);
        effects.extend(again.then_some(RegistryEffect::Retry(token)));
        Ok(effects)
    }

    pub(super) fn first_moments_over(&mut self, id: &ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(id) else { return Err(Refusal::Stale) };
        let Role::Beginning(pool) = entry.role else { return Err(Refusal::Stale) };
        entry.role = Role::Ordinary;
        self.on_pool(pool, PoolEvent::Begun)
    }
}
