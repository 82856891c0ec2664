// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
)

// A counter that starts again when it is reset from outside: add reads the sum of the tick before.
func Example() {
	reset := &circuit.Input{Value: 0}
	add, _ := component.NewArithmetic("add")
	named := func(name string) circuit.Signal { return circuit.Signal{Circuit: circuit.Root, Name: name} }
	c, err := circuit.Compile(time.Second, []circuit.Node{
		{ID: "root.0", Kind: "input", Component: reset, Out: []circuit.Out{{Port: "output", Signal: named("RESET")}}},
		{
			ID: "root.1", Kind: "arithmetic_combinator", Component: add,
			In:  []circuit.In{{Port: "lhs", Signal: named("COUNT")}, {Port: "rhs", Constant: 1}},
			Out: []circuit.Out{{Port: "output", Signal: named("NEXT")}},
		},
		{
			ID: "root.2", Kind: "first_valid", Component: component.FirstValid{},
			In:  []circuit.In{{Port: "inputs[0]", Signal: named("NEXT")}, {Port: "inputs[1]", Constant: 0}},
			Out: []circuit.Out{{Port: "output", Signal: named("GUARDED")}},
		},
		{
			ID: "root.3", Kind: "switcher", Component: component.Switcher{},
			In: []circuit.In{
				{Port: "on_signal", Constant: 0},
				{Port: "off_signal", Signal: named("GUARDED")},
				{Port: "switch", Signal: named("RESET")},
			},
			Out: []circuit.Out{{Port: "output", Signal: named("COUNT")}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	count, _ := c.Index(named("COUNT"))
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for tick := range 6 {
		reset.Value = 0
		if tick == 3 {
			reset.Value = 1
		}
		c.Tick(now)
		now = now.Add(c.Interval())
		fmt.Print(c.Values()[count], " ")
	}
	fmt.Println("root.1 reads the tick before:", c.Looped(1, 0))
	// Output: 0 1 2 0 1 2 root.1 reads the tick before: true
}
