// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-project/sluice/internal/signal"
)

// FromService makes Signals of a service.
func FromService(s *signal.Service) Signals { return service{s} }

type service struct{ *signal.Service }

// Subscribe implements Signals.
func (s service) Subscribe(q signal.Query) (Subscription, error) {
	sub, err := s.Service.Subscribe(q)
	if err != nil { // a nil *signal.Subscription is no nil Subscription
		return nil, err
	}
	return sub, nil
}

// pump drives Signals in a goroutine of its own, so that a disk or a server that hangs does not stop the
// circuits: they go on with the readings they have. Its methods are called by one goroutine.
type pump struct {
	signals Signals
	log     *slog.Logger
	jobs    chan job
	done    chan struct{} // capacity 1
	timer   *time.Timer
	cancel  context.CancelFunc
	running sync.WaitGroup
	busy    bool
}

// job is what a tick needs of the signals.
type job struct {
	at      time.Time
	collect bool
	wait    time.Duration
}

func (p *pump) start(ctx context.Context, s Signals, log *slog.Logger) {
	if s == nil {
		return
	}
	ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx)) // until stop: run must find the goroutine
	p.signals, p.log, p.jobs, p.done, p.busy = s, log, make(chan job), make(chan struct{}, 1), false
	p.timer = time.NewTimer(time.Hour)
	p.timer.Stop()
	p.running.Go(func() { p.work(ctx) })
}

// stop waits for the goroutine.
func (p *pump) stop() {
	if p.cancel != nil {
		p.cancel()
		p.running.Wait()
		p.cancel = nil
	}
}

func (p *pump) work(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-p.jobs:
			if j.collect {
				err := p.signals.Collect(ctx, j.at)
				if err != nil && !failing && ctx.Err() == nil {
					p.log.Warn("the metrics of this process cannot be kept: policies do not see what happens now", "error", err)
				}
				failing = err != nil
			}
			p.signals.Step(ctx, j.at, j.wait)
			p.done <- struct{}{}
		}
	}
}

// run does a job and waits for it: twice as long as the job itself would wait for its queries, or half of
// that for the job before. It returns false when that was too short.
func (p *pump) run(j job) bool {
	if p.busy && !p.finished(j.wait) {
		return false
	}
	p.jobs <- j // the goroutine is there, because nothing is busy
	p.busy = true
	return p.finished(2 * j.wait)
}

// finished waits for the job that runs.
func (p *pump) finished(wait time.Duration) bool {
	select {
	case <-p.done:
		p.busy = false
		return true
	default:
	}
	if wait <= 0 {
		return false
	}
	p.timer.Reset(wait)
	defer p.timer.Stop()
	select {
	case <-p.done:
		p.busy = false
		return true
	case <-p.timer.C:
		return false
	}
}
