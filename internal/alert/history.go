// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"time"
)

// How the history is kept.
const (
	// saveInterval is the least time between two saves: each one makes the disk turn.
	saveInterval = time.Second
	// saveTimeout bounds a save.
	saveTimeout = 10 * time.Second
	// longestSavePause is the time between attempts while the store fails.
	longestSavePause = time.Minute
)

// Load takes over what the Store has kept. Alerts that fired go on firing: they are over unless they are
// raised again within their resolve timeout, at least RestartGrace. Call it once, before Raise and Run.
func (c *Center) Load(ctx context.Context) error {
	if c.config.Store == nil {
		return nil
	}
	alerts, err := c.config.Store.LoadAlerts(ctx)
	if err != nil {
		return fmt.Errorf("load alerts: %w", err)
	}
	slices.SortFunc(alerts, func(a, b Alert) int { return cmp.Compare(a.ID, b.ID) })
	now := time.Now()
	var over []*record
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range alerts {
		c.lastID = a.ID
		r := &record{key: identity(a.Labels), version: 1, alert: a}
		r.alert.Pending = nil
		if a.State == Firing && c.byLabels[r.key] == nil && len(c.due) < c.config.Keep {
			c.restore(r, a.Pending, now)
			continue
		}
		if a.State == Firing { // the same alert twice: not what we write
			r.alert.State, r.alert.End = Resolved, plain(now)
			c.touch(r)
		}
		c.owe(r, a.Pending)
		over = append(over, r)
	}
	slices.SortStableFunc(over, func(a, b *record) int { return a.alert.End.Compare(b.alert.End) })
	for _, r := range over {
		c.resolved.PushBack(r)
	}
	for c.resolved.Len() > 0 && c.resolved.Len()+len(c.due) > c.config.Keep {
		c.resolved.Remove(c.resolved.Front())
	}
	return nil
}

// restore makes an alert of before the restart fire.
func (c *Center) restore(r *record, pending []string, now time.Time) {
	r.until = now.Add(max(timeout(r.alert.ResolveTimeout), RestartGrace))
	r.source.ResolveTimeout = r.alert.ResolveTimeout
	for _, k := range c.couriersOf(r.alert.Channels) {
		d := &delivery{record: r, courier: k, told: r.version}
		r.deliveries = append(r.deliveries, d)
		if slices.Contains(pending, k.target.Name) {
			d.told = 0
		}
		if k.resends() {
			r.resend = now.Add(ResendInterval)
		}
		if d.told == 0 || k.resends() { // it may have taken the alert for over meanwhile
			c.enqueue(d)
		}
	}
	c.byLabels[r.key] = r
	r.due = r.nextDue()
	heap.Push(&c.due, r)
}

// owe queues a resolved alert for the targets that do not know yet and are still there.
func (c *Center) owe(r *record, pending []string) {
	for _, k := range c.couriers {
		if slices.Contains(pending, k.target.Name) {
			d := &delivery{record: r, courier: k}
			r.deliveries = append(r.deliveries, d)
			c.enqueue(d)
		}
	}
}

// keepHistory saves what has changed until ctx ends.
func (c *Center) keepHistory(ctx context.Context) {
	pause := saveInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.unsaved:
		}
		err := c.save(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && pause == saveInterval:
			c.log.Error("cannot keep the history of alerts; they are delivered and listed, but a restart would lose them",
				"error", err, "tries_again", true)
			pause *= 2
		case err != nil:
			pause = min(2*pause, longestSavePause)
		case pause != saveInterval:
			c.log.Info("keeps the history of alerts again")
			pause = saveInterval
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// save saves what is dirty. On an error it stays dirty.
func (c *Center) save(ctx context.Context) error {
	c.mu.Lock()
	records := c.dirty
	c.dirty = map[int64]*record{}
	alerts := make([]Alert, 0, len(records))
	for _, r := range records {
		alerts = append(alerts, r.snapshot())
	}
	c.mu.Unlock()
	if len(alerts) == 0 {
		return nil
	}
	slices.SortFunc(alerts, func(a, b Alert) int { return cmp.Compare(a.ID, b.ID) })
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := c.config.Store.SaveAlerts(ctx, alerts, c.config.Keep)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.historyErrors++
	for _, r := range records {
		c.touch(r)
	}
	return err
}

// forgetDirty bounds what waits for a store that fails: of the resolved alerts, those the history has
// forgotten meanwhile are not worth saving. The caller holds mu.
func (c *Center) forgetDirty() {
	kept := make(map[int64]*record, c.config.Keep)
	for _, r := range c.due {
		if c.dirty[r.alert.ID] == r {
			kept[r.alert.ID] = r
		}
	}
	for e := c.resolved.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*record); c.dirty[r.alert.ID] == r {
			kept[r.alert.ID] = r
		}
	}
	c.dirty = kept
}

// saveLast saves when everything has stopped.
func (c *Center) saveLast(ctx context.Context) {
	if c.config.Store == nil {
		return
	}
	if err := c.save(context.WithoutCancel(ctx)); err != nil {
		c.log.Error("cannot keep the last changes of alerts", "error", err)
	}
}
