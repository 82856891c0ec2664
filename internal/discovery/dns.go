// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Resolver looks names up; a net.Resolver is one. Its methods are called concurrently.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

var _ Resolver = (*net.Resolver)(nil)

// Bounds on answers and on look-ups at the same time.
const (
	maxTargets     = 256   // of one SRV record
	maxAddresses   = 1_000 // of one name
	maxLookups     = 16
	shortestRetry  = time.Second
	problemsListed = 3
)

// dnsSource keeps the addresses of names.
type dnsSource struct {
	config DNS
	feed   *Feed
	log    *slog.Logger
	slots  chan struct{} // one for each look-up at the same time

	mu    sync.Mutex // guards what is in names, and publishing
	names []*dnsName
}

// dnsName is a service with the last answer for its host.
type dnsName struct {
	DNSService
	addresses []netip.Addr
	good      time.Time // when they were the answer; zero: never
	problem   string    // of the last look-up
	failed    int       // look-ups in a row
}

func newDNS(config DNS, feed *Feed, log *slog.Logger) *dnsSource {
	if config.Interval == 0 {
		config.Interval = DefaultInterval
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	if config.Keep == 0 {
		config.Keep = DefaultKeep
	}
	if config.Resolver == nil {
		config.Resolver = net.DefaultResolver
	}
	s := &dnsSource{config: config, feed: feed, log: log, slots: make(chan struct{}, maxLookups)}
	for _, one := range config.Services {
		s.names = append(s.names, &dnsName{DNSService: one})
	}
	return s
}

// run looks every name up until ctx ends.
func (s *dnsSource) run(ctx context.Context) {
	var names sync.WaitGroup
	for _, n := range s.names {
		names.Go(func() { s.follow(ctx, n) })
	}
	names.Wait()
}

// follow looks one name up again and again.
func (s *dnsSource) follow(ctx context.Context, n *dnsName) {
	for ctx.Err() == nil {
		timer := time.NewTimer(s.refresh(ctx, n))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// refresh looks a name up and tells how long to wait for the next time.
func (s *dnsSource) refresh(ctx context.Context, n *dnsName) time.Duration {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	lookup, cancel := context.WithTimeout(ctx, s.config.Timeout)
	addresses, err := s.lookup(lookup, n.Host)
	cancel()
	<-s.slots
	if ctx.Err() != nil {
		return 0
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.take(n, addresses, err, now)
	s.publish()
	return wait
}

// take notes what came of a look-up. An answer that has some addresses and an error counts: some targets of
// a service record did not resolve. s.mu is held.
func (s *dnsSource) take(n *dnsName, addresses []netip.Addr, err error, now time.Time) time.Duration {
	was := n.problem
	if n.problem = ""; err != nil {
		s.feed.Failed()
		n.problem = fmt.Sprintf("%s: %s", n.Host, reason(err))
	}
	if err == nil || len(addresses) > 0 {
		n.addresses, n.good, n.failed = addresses, now, 0
	} else {
		n.failed++
		if len(n.addresses) > 0 && now.Sub(n.good) >= s.config.Keep {
			n.addresses = nil
		}
	}
	switch {
	case was == "" && n.problem != "":
		s.log.Warn("looking up a service in DNS failed", "service", n.Service, "host", n.Host, "error", reason(err))
	case was != "" && n.problem == "":
		s.log.Info("looking up a service in DNS works again", "service", n.Service, "host", n.Host)
	}
	return s.next(n, now)
}

// next is when to look up again: after the interval give or take a tenth; while it fails sooner, at first after
// a second, then after twice that and so on; and no later than the last answer stops to count.
func (s *dnsSource) next(n *dnsName, now time.Time) time.Duration {
	wait := s.config.Interval
	if n.failed > 0 {
		wait = min(wait, shortestRetry<<min(n.failed-1, 20))
	}
	tenth := int64(wait / 10)
	wait += time.Duration(rand.Int64N(2*tenth+1) - tenth)
	if n.failed > 0 && len(n.addresses) > 0 {
		wait = min(wait, n.good.Add(s.config.Keep).Sub(now))
	}
	return wait
}

// reason says why a look-up failed, without the name and without the servers that were asked.
func reason(err error) string {
	var d *net.DNSError
	switch {
	case errors.As(err, &d) && d.IsNotFound:
		return "there is no such name in DNS, or it has no address"
	case errors.As(err, &d) && d.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "DNS did not answer in time"
	case errors.As(err, &d):
		return d.Err
	}
	return err.Error()
}

// lookup finds the addresses of a host, sorted. With an error there may be some, too.
func (s *dnsSource) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	hosts := []string{host}
	if strings.HasPrefix(host, "_") {
		_, records, err := s.config.Resolver.LookupSRV(ctx, "", "", host)
		if len(records) == 0 {
			return nil, err
		}
		hosts = hosts[:0]
		for _, r := range records {
			if r.Target != "." && !slices.Contains(hosts, r.Target) && len(hosts) < maxTargets { // ".": decidedly not available
				hosts = append(hosts, r.Target)
			}
		}
	}
	var all []netip.Addr
	var problems []error
	for _, h := range hosts {
		found, err := s.config.Resolver.LookupNetIP(ctx, "ip", h)
		if err != nil {
			if h != host {
				err = fmt.Errorf("target %s: %s", h, reason(err))
			}
			problems = append(problems, err)
			continue
		}
		for _, ip := range found {
			all = append(all, canonical(ip))
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	if len(all) > maxAddresses {
		problems = append(problems, fmt.Errorf("it has %d addresses; only %d of them are used", len(all), maxAddresses))
		all = all[:maxAddresses]
	}
	return all, errors.Join(problems...)
}

// publish tells the directory. s.mu is held.
func (s *dnsSource) publish() {
	at := make(map[netip.Addr]int)
	var entities []Entity
	var problems []string
	oldest := time.Now()
	for _, n := range s.names {
		for _, ip := range n.addresses {
			i, ok := at[ip]
			if !ok {
				i = len(entities)
				at[ip] = i
				entities = append(entities, Entity{Address: ip.String(), Name: strings.TrimSuffix(n.Host, ".")})
			}
			entities[i].Services = union(entities[i].Services, []string{n.Service})
		}
		if n.problem != "" {
			problems = append(problems, n.problem)
		}
		if n.good.Before(oldest) {
			oldest = n.good
		}
	}
	if more := len(problems) - problemsListed; more > 0 {
		problems = append(problems[:problemsListed], fmt.Sprintf("and %d more", more))
	}
	s.feed.Set(entities)
	s.feed.Confirm(oldest)
	s.feed.Problem(strings.Join(problems, "; "))
}
