// SPDX-License-Identifier: Apache-2.0

package app

import (
	"github.com/sluice-project/sluice/internal/extauthz"
	"github.com/sluice-project/sluice/internal/forwardauth"
	"github.com/sluice-project/sluice/internal/rpc"
)

// doors are the ways in besides Sluice's own API.
func (p *parts) doors() []rpc.Door {
	forward := forwardauth.New(forwardauth.Config{Engine: p.engine, QueueTimeout: forwardauth.DefaultQueueTimeout})
	envoy := extauthz.New(extauthz.Config{Engine: p.engine, Logger: p.log})
	p.registry.MustRegister(envoy.Collector())
	return []rpc.Door{{Paths: forward.Paths()}, {RegisterGRPC: envoy.RegisterGRPC}}
}
