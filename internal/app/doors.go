// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/aperture"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/discovery/kubernetes"
	"github.com/sluice-project/sluice/internal/extauthz"
	"github.com/sluice-project/sluice/internal/forwardauth"
	"github.com/sluice-project/sluice/internal/rls"
	"github.com/sluice-project/sluice/internal/rpc"
)

// openDiscovery makes the directory of services. What has to be watched is watched by run.
func (p *parts) openDiscovery(c config.Config) (err error) {
	settings := c.Discovery.Directory()
	settings.Logger = p.log
	if p.directory, err = discovery.New(settings); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	if err = p.registry.Register(p.directory.Collector()); err != nil || !c.Discovery.Kubernetes.Enabled {
		return err
	}
	cluster := clusterOf(c)
	cluster.Logger = p.log
	p.cluster, err = kubernetes.New(cluster)
	return err
}

// clusterOf are the settings of a cluster as package kubernetes has them.
func clusterOf(c config.Config) kubernetes.Config {
	k := c.Discovery.Kubernetes
	return kubernetes.Config{
		Kubeconfig: k.Kubeconfig, Namespace: k.Namespace, Node: k.Node, ClusterDomain: k.ClusterDomain,
		MaxEntities: int(c.Discovery.MaxEntities),
	}
}

// services finds services by address; nil: nothing is configured that could know any.
func (p *parts) services() func(address string) []string {
	d := p.config.Discovery
	if len(d.Static) == 0 && len(d.DNS.Services) == 0 && !d.Kubernetes.Enabled {
		return nil
	}
	return p.directory.ByIP
}

// doors are the ways in besides Sluice's own API.
func (p *parts) doors() ([]rpc.Door, error) {
	services := p.services()
	forward := forwardauth.New(forwardauth.Config{
		Engine: p.engine, Services: services, QueueTimeout: p.config.ForwardAuth.QueueTimeout.Std(),
	})
	limits := p.config.EnvoyRateLimit.Service()
	limits.Engine, limits.Services, limits.Logger = p.engine, services, p.log
	ratelimit := rls.New(limits)
	old, err := aperture.New(aperture.Config{
		Engine: p.engine, Services: services, Cache: p.cache, Entities: p.directory, Logger: p.log,
		Ready: func() error { return p.server.Ready() }, // it is there before the first request
	})
	if err != nil {
		return nil, err
	}
	checks := extauthz.Config{
		Engine: p.engine, Services: services, Logger: p.log, ControlPoint: p.config.EnvoyAuthorization.ControlPoint,
	}
	if p.config.EnvoyAuthorization.ApertureMetadata {
		checks.CheckResponse = aperture.EncodeCheckResponse
	}
	envoy := extauthz.New(checks)
	p.drain = func() {
		p.engine.Close()
		old.Drain()
	}
	var errs []error
	for _, c := range []prometheus.Collector{forward.Collector(), ratelimit.Collector(), old.Collector(), envoy.Collector()} {
		errs = append(errs, p.registry.Register(c))
	}
	return []rpc.Door{
		{Paths: forward.Paths()},
		{RegisterGRPC: envoy.RegisterGRPC},
		{RegisterGRPC: ratelimit.RegisterGRPC},
		{RegisterGRPC: old.RegisterGRPC, Paths: old.Paths()},
	}, errors.Join(errs...)
}
