// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"hash/fnv"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/signal"
)

// planes is both planes as build wires them, without the port and the store, so that they live in a bubble of
// virtual time.
type planes struct {
	t         *testing.T
	engine    *flow.Engine
	signals   *signal.Service
	alerts    *alert.Center
	runtime   *control.Runtime
	publisher *publisher
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// newPlanes starts both planes; they stop with the test. adjust may change how signals are kept.
func newPlanes(t *testing.T, adjust func(*signal.Config)) *planes {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &planes{t: t}
	memory, err := ledger.NewMemory(ledger.Config{MaxAccounts: 10_000})
	must(err)
	p.engine, err = flow.New(flow.Config{Authority: memory, TokenKey: make([]byte, flow.TokenKeySize)})
	must(err)
	registry, err := newRegistry(p.engine, memory)
	must(err)
	c := signal.Config{Dir: filepath.Join(t.TempDir(), "signals"), Gatherer: registry, Registerer: registry}
	if adjust != nil {
		adjust(&c)
	}
	p.signals, err = signal.Open(t.Context(), c)
	must(err)
	p.alerts, err = alert.New(alert.Config{})
	must(err)
	p.runtime = control.New(control.Config{DataPlane: p.engine, Signals: control.FromService(p.signals), Alerts: p.alerts})
	p.publisher = &publisher{engine: p.engine, runtime: p.runtime, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	p.running.Go(func() { _ = p.runtime.Run(ctx) })
	p.running.Go(func() { _ = p.alerts.Run(ctx) })
	t.Cleanup(func() {
		p.stop()
		p.running.Wait()
		p.engine.Close()
		p.runtime.Close()
		p.signals.Close()
		if err := memory.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// compiled compiles a document that has to be good.
func compileDocument(t *testing.T, text string) *document.Compiled {
	t.Helper()
	c, err := Compiler{}.Compile(document.Source{File: "p.yaml", Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Limiters { // as the catalog does
		h := fnv.New64a()
		_, _ = h.Write([]byte(c.Name + "/" + c.Limiters[i].Component))
		c.Limiters[i].UID = h.Sum64()
	}
	return c
}

// publish replaces the policies in force.
func (p *planes) publish(documents ...string) []*document.Compiled {
	p.t.Helper()
	set := make([]*document.Compiled, len(documents))
	for i, text := range documents {
		set[i] = compileDocument(p.t, text)
	}
	if err := p.publisher.Publish(set); err != nil {
		p.t.Fatal(err)
	}
	return set
}

// value is the reading of a signal of a policy's outermost circuit on the last tick.
func (p *planes) value(policy, name string) float64 {
	p.t.Helper()
	signals, frames, err := p.runtime.History(policy, 1)
	if err != nil || len(frames) == 0 {
		p.t.Fatalf("%s: %v", policy, err)
	}
	for i, s := range signals {
		if s.Circuit == "root" && s.Name == name {
			return frames[0].Values[i]
		}
	}
	p.t.Fatalf("%s has no signal %s", policy, name)
	return 0
}
