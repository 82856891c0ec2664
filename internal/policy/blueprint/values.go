// SPDX-License-Identifier: Apache-2.0

package blueprint

import "github.com/sluice-project/sluice/internal/policy"

// Common are the values of every blueprint.
type Common struct {
	// Name of the policy.
	PolicyName string `json:"policy_name" check:"required,name"`
	// Time from one tick of the circuit to the next: how often signals are read and limits moved.
	EvaluationInterval policy.Duration `json:"evaluation_interval" default:"1s" check:"gte=100ms,lte=1h"`
	// More components for the circuit. They may read the signals of the blueprint.
	Components []policy.Component `json:"components,omitempty"`
	// More resources for the policy.
	Resources policy.Resources `json:"resources,omitzero"`
}

func (c *Common) shared() *Common { return c }

// values is implemented by the structs of values.
type values interface {
	shared() *Common
	// build adds what the values ask for. Values may be incomplete: what is missing was reported before.
	build(c *circuit)
}
