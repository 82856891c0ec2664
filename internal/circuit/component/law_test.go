// SPDX-License-Identifier: Apache-2.0

package component_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
)

// runner steps a component, tick by tick.
type runner struct {
	c    circuit.Component
	tick circuit.Tick
	out  [3]float64
}

func run(c circuit.Component, interval time.Duration) *runner {
	return &runner{c: c, tick: circuit.Tick{Now: start, Interval: interval}}
}

// step returns the first output.
func (r *runner) step(in ...float64) float64 {
	r.out = [3]float64{math.NaN(), math.NaN(), math.NaN()}
	r.c.Step(&r.tick, in, r.out[:])
	r.tick.Count++
	r.tick.Now = r.tick.Now.Add(r.tick.Interval)
	return r.out[0]
}

// random tells what a test ran with, and gives the same numbers each time.
func random(t *testing.T, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 7))
}

func same(got, want, tolerance float64) bool {
	return math.IsNaN(got) && math.IsNaN(want) || got == want || math.Abs(got-want) <= tolerance
}

// An SMA is the mean of the last valid inputs, as many as its window has ticks.
func TestSMAIsTheMean(t *testing.T) {
	r := random(t, 1)
	for _, size := range []int{1, 2, 3, 5, 17, 100, 1000} {
		for _, early := range []bool{false, true} {
			sma := run(component.NewSMA(component.SMAConfig{Window: time.Duration(size) * time.Second, ValidDuringWarmup: early}, time.Second), time.Second)
			var last []float64
			missing, want := 0, math.NaN()
			for range 5*size + 50 {
				input := r.NormFloat64()*100 + 1000
				if r.IntN(4) == 0 || size < 20 && r.IntN(10) == 0 && missing > 0 {
					input = math.NaN()
				}
				if math.IsNaN(input) {
					if missing++; missing >= size {
						last, want = nil, math.NaN()
					}
				} else {
					missing = 0
					last = append(last, input)
					last = last[max(0, len(last)-size):]
					if early || len(last) == size {
						want = 0
						for _, v := range last {
							want += v / float64(len(last))
						}
					}
				}
				if got := sma.step(input); !same(got, want, 1e-9) {
					t.Fatalf("window %d, tick %d: got %v, want %v", size, sma.tick.Count, got, want)
				}
			}
		}
	}
}

// A window of more ticks than are kept is as good as exact, in bounded memory, however long it is.
func TestSMAOfALongWindow(t *testing.T) {
	const size = 10_000
	sma := run(component.NewSMA(component.SMAConfig{Window: size * time.Second}, time.Second), time.Second)
	for i := range 5 * size {
		got := sma.step(float64(i))
		if i+1 < size {
			if circuit.Valid(got) {
				t.Fatalf("tick %d: got %v before the window is full", i, got)
			}
			continue
		}
		want := float64(i) - (size-1)/2.0
		if math.Abs(got-want) > size/1024 {
			t.Fatalf("tick %d: got %v, want %v", i, got, want)
		}
	}
	for _, c := range []func() circuit.Component{
		func() circuit.Component {
			return component.NewSMA(component.SMAConfig{Window: 10 * 366 * 24 * time.Hour}, 100*time.Millisecond)
		},
		func() circuit.Component {
			return component.NewDifferentiator(10*366*24*time.Hour, 100*time.Millisecond)
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		made := c()
		runtime.ReadMemStats(&after)
		if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 100_000 { // whatever else runs meanwhile included
			t.Errorf("%T takes %d bytes", made, bytes)
		}
	}
}

// A differentiator of a long window is within one group of the exact one.
func TestDifferentiatorOfALongWindow(t *testing.T) {
	const size = 10_000
	d := run(component.NewDifferentiator(size*time.Second, time.Second), time.Second)
	for i := range 5 * size {
		got := d.step(float64(3 * i))
		want := 3 * float64(min(i, size-1)) / size
		if math.Abs(got-want) > 3.0/1024 {
			t.Fatalf("tick %d: got %v, want %v", i, got, want)
		}
	}
}

// An EMA of finite inputs stays between the smallest and the largest, and comes to a constant input.
func TestEMAStaysAmongItsInputs(t *testing.T) {
	r := random(t, 2)
	for range 200 {
		config := component.EMAConfig{
			Window: time.Duration(r.IntN(20)) * time.Second, Warmup: time.Duration(r.IntN(5)) * time.Second,
			MinEnvelopeFactor: 1, MaxEnvelopeFactor: 1, ValidDuringWarmup: r.IntN(2) == 0,
		}
		ema := run(component.NewEMA(config, time.Second), time.Second)
		low, high := math.Inf(1), math.Inf(-1)
		for range 300 {
			v := r.NormFloat64() * 50
			switch r.IntN(6) {
			case 0:
				v = math.NaN()
			case 1:
				v = math.Inf(1 - 2*r.IntN(2))
			default:
				low, high = min(low, v), max(high, v)
			}
			got := ema.step(v, math.NaN(), math.NaN())
			if got < low-1e-9 || got > high+1e-9 {
				if !math.IsInf(v, 0) || got != v {
					t.Fatalf("%+v: got %v of inputs from %v to %v", config, got, low, high)
				}
			}
		}
		for range 300 {
			ema.step(7, math.NaN(), math.NaN())
		}
		if got := ema.step(7, math.NaN(), math.NaN()); math.Abs(got-7) > 1e-6 {
			t.Fatalf("%+v: got %v after many 7s", config, got)
		}
	}
}

// The sum of an integrator is valid and within its bounds, unless it was reset.
func TestIntegratorBounds(t *testing.T) {
	r := random(t, 3)
	numbers := []float64{0, 1, -1, 100, -100, math.NaN(), math.Inf(1), math.Inf(-1), 1e308, -1e308}
	number := func() float64 { return numbers[r.IntN(len(numbers))] }
	for range 500 {
		i := run(component.NewIntegrator(component.IntegratorConfig{
			Initial: float64(r.IntN(10)), Every: time.Duration(r.IntN(4)) * time.Second,
		}, time.Second), time.Second)
		for range 50 {
			input, reset, highest, lowest := number(), []float64{0, 1, math.NaN(), 0, 0}[r.IntN(5)], number(), number()
			got := i.step(input, reset, highest, lowest)
			switch {
			case math.IsNaN(got):
				t.Fatal("the sum is invalid")
			case reset == 1 && got != 0:
				t.Fatalf("got %v after a reset", got)
			case reset != 1 && (got < lowest || got > highest && !(got == lowest)):
				t.Fatalf("got %v, bounds %v to %v", got, lowest, highest)
			}
		}
	}
}

// A PID controller stays within its bounds whatever comes in, and does not remember infinities: one that had
// them comes to the same as one that did not.
func TestPIDForgetsInfinities(t *testing.T) {
	r := random(t, 4)
	for range 300 {
		config := component.PIDConfig{
			KP: r.Float64(), KI: []float64{0, 0.02 + 0.1*r.Float64()}[r.IntN(2)], KD: []float64{0, 0.1 * r.Float64()}[r.IntN(2)], ResetAfterInvalid: 1 + r.IntN(3),
		}
		pid := run(component.NewPID(config, time.Second), time.Second)
		for range 50 {
			signal := []float64{r.NormFloat64(), math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64}[r.IntN(5)]
			setpoint := []float64{r.NormFloat64(), math.NaN(), math.Inf(1), -math.MaxFloat64}[r.IntN(4)]
			if got := pid.step(signal, setpoint, 10, -10); got < -10 || got > 10 {
				t.Fatalf("%+v: got %v", config, got)
			}
		}
		for range 2000 { // a signal that follows the output: the loop settles at the setpoint, or near it
			pid.step(pid.out[0]/2, 1, 10, -10)
		}
		want := 1.0
		if config.KI == 0 {
			want = config.KP / (2 + config.KP)
		}
		if got := pid.out[0] / 2; math.Abs(got-want) > 0.01 {
			t.Fatalf("%+v: settles at %v, want %v", config, got, want)
		}
	}
}

// Three-valued logic by its truth tables, for all combinations of up to four inputs; and De Morgan's law.
func TestKleene(t *testing.T) {
	values := []float64{0, 1, math.NaN(), -2}
	for n := range 5 {
		for code := range 1 << (2 * n) {
			in, inverted := make([]float64, n), make([]float64, n)
			falses, unknowns := 0, 0
			for i := range in {
				in[i] = values[code>>(2*i)&3]
				inverted[i] = run(component.Inverter{}, 0).step(in[i])
				switch {
				case in[i] == 0:
					falses++
				case math.IsNaN(in[i]):
					unknowns++
				}
			}
			and, or := 1.0, 0.0
			switch {
			case falses > 0:
				and = 0
			case unknowns > 0:
				and = math.NaN()
			}
			switch {
			case falses+unknowns < n:
				or = 1
			case unknowns > 0:
				or = math.NaN()
			}
			if got := run(component.And{}, 0).step(in...); !same(got, and, 0) {
				t.Errorf("and%v: got %v, want %v", in, got, and)
			}
			if got := run(component.Or{}, 0).step(in...); !same(got, or, 0) {
				t.Errorf("or%v: got %v, want %v", in, got, or)
			}
			notAnd := run(component.Inverter{}, 0).step(run(component.And{}, 0).step(in...))
			if got := run(component.Or{}, 0).step(inverted...); !same(got, notAnd, 0) {
				t.Errorf("De Morgan of %v: got %v, want %v", in, got, notAnd)
			}
		}
	}
}

// A ramp of rising targets rises, is at its end after the sum of its lengths, and comes back the same way.
func TestRamp(t *testing.T) {
	r := random(t, 5)
	for range 300 {
		var steps []component.GeneratorStep
		target, length := float64(r.IntN(10)), int64(0)
		for range 1 + r.IntN(5) {
			step := component.GeneratorStep{Target: target, Length: time.Duration(r.IntN(5000)) * time.Millisecond}
			steps = append(steps, step)
			target += r.Float64() * 50
			length += max(1, int64(math.Ceil(step.Length.Seconds())))
		}
		g := run(component.NewGenerator(steps, time.Second), time.Second)
		up := []float64{g.step(0, 0, 0)}
		if up[0] != steps[0].Target || g.out[1] != 1 || g.out[2] != 0 {
			t.Fatalf("%v: starts with %v", steps, g.out)
		}
		for range length {
			v := g.step(1, 0, 0)
			if v < up[len(up)-1] || g.out[1] != 0 {
				t.Fatalf("%v: got %v after %v", steps, g.out, up)
			}
			up = append(up, v)
		}
		if last := steps[len(steps)-1].Target; up[length] != last || g.out[2] != 1 {
			t.Fatalf("%v: got %v at the end, want %v", steps, g.out, last)
		}
		for i := length - 1; i >= 0; i-- {
			if g.out[2] != reading(i == length-1) {
				t.Fatalf("%v: at_end is %v at %d", steps, g.out[2], i+1)
			}
			if v := g.step(0, 1, 0); v != up[i] {
				t.Fatalf("%v: got %v on the way back, want %v", steps, v, up[i])
			}
		}
		if g.out[1] != 1 {
			t.Fatalf("%v: not at its start", steps)
		}
	}
}

func reading(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// A polynomial meets both ends exactly and, clamped, stays between its outputs.
func TestPolynomialMeetsItsEnds(t *testing.T) {
	r := random(t, 6)
	for range 500 {
		c := component.PolynomialConfig{
			Start:  component.Datapoint{Input: r.NormFloat64() * 100, Output: r.NormFloat64()},
			End:    component.Datapoint{Input: r.NormFloat64() * 100, Output: r.NormFloat64()},
			Degree: 0.1 + 5*r.Float64(), Clamp: true,
		}
		c.Before, c.After = c.Start.Output, c.End.Output
		p := run(component.NewPolynomial(c), time.Second)
		if got := p.step(c.Start.Input); got != c.Start.Output {
			t.Fatalf("%+v: starts with %v", c, got)
		}
		if got := p.step(c.End.Input); got != c.End.Output {
			t.Fatalf("%+v: ends with %v", c, got)
		}
		low, high := min(c.Before, c.After), max(c.Before, c.After)
		for range 20 {
			if got := p.step(r.NormFloat64() * 200); got < low-1e-12 || got > high+1e-12 {
				t.Fatalf("%+v: got %v", c, got)
			}
		}
	}
}

// A decider changes when the comparison has been the other way for long enough, and not before.
func TestDeciderWaits(t *testing.T) {
	r := random(t, 7)
	for range 200 {
		trueFor, falseFor := r.IntN(5), r.IntN(5)
		c, _ := component.NewDecider(component.DeciderConfig{
			Operator: "gt", TrueFor: time.Duration(trueFor) * time.Second, FalseFor: time.Duration(falseFor) * time.Second,
		})
		d := run(c, time.Second)
		var history []bool
		state := false
		for range 100 {
			v := []float64{0, 1, 1, math.NaN()}[r.IntN(4)]
			if len(history) > 0 && r.IntN(3) > 0 {
				v = reading(history[len(history)-1])
			}
			history = append(history, v == 1)
			wait := falseFor
			if !state {
				wait = trueFor
			}
			turned := len(history) > wait
			for i := 0; turned && i <= wait; i++ {
				turned = history[len(history)-1-i] != state
			}
			state = state != turned
			if got := d.step(v, 0); got != reading(state) {
				t.Fatalf("true for %d, false for %d: got %v after %v", trueFor, falseFor, got, history)
			}
		}
	}
}

// Wrong values of the dynamic configuration are refused in words, and change nothing.
func TestConfigureRefuses(t *testing.T) {
	const hint = "; correct the value, or delete the key to go back to that of the policy"
	const number, boolean = "want a number, or one of the texts NaN, +Inf and -Inf", "want true or false"
	for _, c := range []struct {
		c     circuit.Configurable
		value any
		want  string
	}{
		{component.NewVariable(5, "k"), true, "k: got true, " + number},
		{component.NewVariable(5, "k"), "fast", `k: got the text "fast", ` + number},
		{component.NewVariable(5, "k"), "7", `k: got the text "7", ` + number},
		{component.NewVariable(5, "k"), nil, "k: got null, " + number},
		{component.NewVariable(5, "k"), []any{1.0, 2.0}, "k: got a list of 2, " + number},
		{component.NewVariable(5, "k"), map[string]any{"value": "NaN"}, "k: got a mapping, " + number},
		{component.NewVariable(5, "k"), map[string]any{"value": 1.0, "x": 2.0}, "k: got a mapping, " + number},
		{component.NewVariable(5, "k"), struct{}{}, "k: got a struct {}, " + number},
		{component.NewBoolVariable(true, "k"), 1.0, "k: got the number 1, " + boolean},
		{component.NewBoolVariable(true, "k"), "true", `k: got the text "true", ` + boolean},
		{component.NewGradient(component.GradientConfig{ManualKey: "k"}), 0, "k: got the number 0, " + boolean},
	} {
		err := c.c.Configure(func(string) (any, bool) { return c.value, true })
		if err == nil || err.Error() != c.want+hint {
			t.Errorf("%T %v:\ngot  %v\nwant %s", c.c, c.value, err, c.want+hint)
		}
		if v, ok := c.c.(*component.Variable); ok {
			if got := run(v, 0).step(); got != 5 {
				t.Errorf("%v: the variable is %v", c.value, got)
			}
		}
	}
}

// Numbers arrive as decoders make them, and as documents write them.
func TestVariableAccepts(t *testing.T) {
	for _, c := range []struct {
		value any
		want  float64
	}{
		{2.5, 2.5},
		{7, 7},
		{int64(-7), -7},
		{uint64(7), 7},
		{map[string]any{"value": 2.5}, 2.5},
		{map[string]any{"special_value": "-Inf"}, math.Inf(-1)},
		{"NaN", math.NaN()},
		{"+Inf", math.Inf(1)},
	} {
		v := component.NewVariable(5, "k")
		if err := v.Configure(func(string) (any, bool) { return c.value, true }); err != nil {
			t.Errorf("%v: %v", c.value, err)
		}
		if got := run(v, 0).step(); !same(got, c.want, 0) {
			t.Errorf("%v: got %v, want %v", c.value, got, c.want)
		}
	}
}

// Operators that do not exist are not made.
func TestUnknownOperators(t *testing.T) {
	if _, ok := component.NewArithmetic("pow"); ok {
		t.Error("arithmetic pow")
	}
	if _, ok := component.NewUnary("neg"); ok {
		t.Error("unary neg")
	}
	if _, ok := component.NewDecider(component.DeciderConfig{Operator: "=="}); ok {
		t.Error("decider ==")
	}
}

// Without steps, which no document has, a generator is invalid rather than a panic.
func TestGeneratorWithoutSteps(t *testing.T) {
	if got := run(component.NewGenerator(nil, time.Second), time.Second).step(1, 0, 0); circuit.Valid(got) {
		t.Errorf("got %v", got)
	}
}

// FuzzSteps runs each component on any inputs at any interval: no panic, and truth values stay truth values.
func FuzzSteps(f *testing.F) {
	f.Add(uint8(3), int64(time.Second), int64(3*time.Second), 1.0, 2.0, math.NaN(), 4.0)
	f.Add(uint8(10), int64(100*time.Millisecond), int64(0), math.Inf(1), -1.0, 0.0, 1e308)
	f.Add(uint8(20), int64(1), int64(math.MaxInt64), -1.0, 64.0, math.Inf(-1), 0.5)
	f.Fuzz(func(t *testing.T, n uint8, interval, length int64, a, b, c, d float64) {
		all := every(time.Duration(interval), time.Duration(length), a, b)
		r := run(all[int(n)%len(all)], time.Duration(interval))
		numbers := []float64{a, b, c, d, math.NaN(), a, 1, 0}
		for i := range 16 {
			in := make([]float64, 5)
			for j := range in {
				in[j] = numbers[(i*(j+1)+j)%len(numbers)]
			}
			got := r.step(in...)
			switch r.c.(type) {
			case *component.Decider, *component.Pulse, component.And, component.Or, component.Inverter:
				if got != 0 && got != 1 && circuit.Valid(got) {
					t.Fatalf("%T: got %v", r.c, got)
				}
			case *component.Integrator:
				if !circuit.Valid(got) && circuit.Valid(a) {
					t.Fatalf("%T: got %v", r.c, got)
				}
			}
		}
	})
}

// every returns one of each component.
func every(interval, length time.Duration, a, b float64) []circuit.Component {
	all := []circuit.Component{
		component.NewGradient(component.GradientConfig{Slope: a, MinGradient: -math.MaxFloat64, MaxGradient: math.MaxFloat64}),
		component.NewPID(component.PIDConfig{KP: a, KI: b, KD: a, Every: length, ResetAfterInvalid: 2}, interval),
		component.NewEMA(component.EMAConfig{Window: length, Warmup: length / 2, MinEnvelopeFactor: a, MaxEnvelopeFactor: b}, interval),
		component.NewSMA(component.SMAConfig{Window: length, ValidDuringWarmup: true}, interval),
		component.Switcher{},
		component.NewVariable(a, ""), component.NewBoolVariable(true, ""),
		component.Copy{},
		component.NewExtrapolator(length),
		component.Max{},
		component.Min{},
		component.FirstValid{},
		component.And{},
		component.Or{},
		component.Inverter{},
		component.NewIntegrator(component.IntegratorConfig{Initial: a, Every: length}, interval),
		component.NewDifferentiator(length, interval), component.NewPulse(length, length, interval), component.NewHolder(length, interval),
		component.NewGenerator([]component.GeneratorStep{{Target: a, Length: length}, {Target: b, Length: length / 7}}, interval),
		component.NewPolynomial(component.PolynomialConfig{
			Start: component.Datapoint{Input: a, Output: b}, End: component.Datapoint{Input: b, Output: a}, Degree: a,
		}),
	}
	for _, name := range []string{"add", "sub", "mul", "div", "xor", "lshift", "rshift"} {
		c, ok := component.NewArithmetic(name)
		if !ok {
			panic(fmt.Sprint("no operator ", name))
		}
		all = append(all, c)
	}
	for _, name := range []string{"gt", "lt", "gte", "lte", "eq", "neq"} {
		c, ok := component.NewDecider(component.DeciderConfig{Operator: name, TrueFor: length, FalseFor: length / 3})
		if !ok {
			panic(fmt.Sprint("no operator ", name))
		}
		all = append(all, c)
	}
	return all
}
