// SPDX-License-Identifier: Apache-2.0

package component_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
)

var rewrite = flag.Bool("rewrite", false, "write what components give out into testdata")

// Scripts. A file of testdata is a component; testdata/README.md has the format.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			played := play(t, file, text)
			if *rewrite {
				if err := os.WriteFile(file, played, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// player plays a script, a line at a time.
type player struct {
	t        *testing.T
	at       string // file:line
	interval time.Duration
	c        circuit.Component
	ports    int
	outs     []string
	tick     circuit.Tick
}

func play(t *testing.T, file string, text []byte) []byte {
	var out bytes.Buffer
	p := &player{t: t}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		p.at = fmt.Sprintf("%s:%d", file, n)
		out.WriteString(p.line(lines.Text()) + "\n")
	}
	return out.Bytes()
}

// line plays a line and returns it with the outputs there were.
func (p *player) line(line string) string {
	if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
		return line
	}
	if kind, ok := strings.CutPrefix(line, "component "); ok {
		p.start(strings.Fields(kind))
		return line
	}
	if p.c == nil {
		p.t.Fatalf("%s: want a line that begins with component", p.at)
	}
	left, right, ok := strings.Cut(line, "|")
	if !ok {
		p.t.Fatalf("%s: want inputs | outputs", p.at)
	}
	if p.outs == nil {
		p.ports, p.outs = len(strings.Fields(left)), strings.Fields(right)
		return line
	}
	got := p.row(strings.Fields(left), strings.Fields(right))
	return left + "| " + strings.Join(got, " ")
}

func (p *player) start(words []string) {
	c := config{t: p.t, at: p.at, values: map[string]string{"interval": "1s"}}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		c.values[key] = value
	}
	p.interval = c.duration("interval")
	build, ok := kinds[words[0]]
	if !ok {
		p.t.Fatalf("%s: unknown component %q", p.at, words[0])
	}
	p.c, p.outs, p.tick = build(&c, p.interval), nil, circuit.Tick{Now: start, Interval: p.interval}
	if len(c.values) > 0 {
		p.t.Errorf("%s: %s does not have %v", p.at, words[0], c.values)
	}
}

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// row is one or more ticks, or a change of the dynamic configuration, or of the clock.
func (p *player) row(in, want []string) []string {
	if len(in) > 0 {
		if d, ok := strings.CutPrefix(in[0], "later:"); ok {
			jump, err := time.ParseDuration(d)
			if err != nil {
				p.t.Fatalf("%s: %v", p.at, err)
			}
			p.tick.Now = p.tick.Now.Add(jump)
			return want
		}
		if text, ok := strings.CutPrefix(in[0], "config:"); ok {
			p.configure(text)
			return want
		}
	}
	times := 1
	if len(in) == p.ports+1 {
		n, err := strconv.Atoi(strings.TrimSuffix(in[0], "x"))
		if err != nil {
			p.t.Fatalf("%s: %v", p.at, err)
		}
		times, in = n, in[1:]
	}
	if len(in) != p.ports || len(want) != len(p.outs) && !*rewrite {
		p.t.Fatalf("%s: got %d inputs and %d outputs, want %d and %d", p.at, len(in), len(want), p.ports, len(p.outs))
	}
	var got []string
	for i := range times {
		got = p.step(in)
		if fmt.Sprint(got) != fmt.Sprint(want) && !*rewrite {
			p.t.Errorf("%s: tick %d: got %v, want %v", p.at, i, got, want)
		}
	}
	return got
}

func (p *player) step(words []string) []string {
	in, out := make([]float64, len(words)), make([]float64, len(p.outs))
	for i, word := range words {
		in[i] = parse(p.t, p.at, word)
	}
	for i := range out {
		out[i] = math.NaN()
	}
	before := fmt.Sprint(in)
	p.c.Step(&p.tick, in, out)
	if after := fmt.Sprint(in); after != before {
		p.t.Errorf("%s: the component wrote its inputs: %s, were %s", p.at, after, before)
	}
	p.tick.Count++
	p.tick.Now = p.tick.Now.Add(p.interval)
	got := make([]string, len(out))
	for i, v := range out {
		got[i] = show(v)
	}
	return got
}

// configure sets keys, such as config:k=true,n=1. Without keys it deletes all.
func (p *player) configure(text string) {
	values := map[string]any{}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		switch f, err := strconv.ParseFloat(value, 64); {
		case !ok:
		case value == "true" || value == "false":
			values[key] = value == "true"
		case err == nil && value != "NaN" && value != "+Inf":
			values[key] = f
		default:
			values[key] = value
		}
	}
	err := p.c.(circuit.Configurable).Configure(func(key string) (any, bool) {
		value, ok := values[key]
		return value, ok
	})
	if err != nil {
		p.t.Errorf("%s: %v", p.at, err)
	}
}

func parse(t *testing.T, at, word string) float64 {
	if word == "inv" {
		return math.NaN()
	}
	v, err := strconv.ParseFloat(word, 64)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	return v
}

// show prints 10 digits, which is enough to see a mistake and not enough to see rounding.
func show(v float64) string {
	switch {
	case math.IsNaN(v):
		return "inv"
	case v == 0:
		return "0"
	}
	return strconv.FormatFloat(v, 'g', 10, 64)
}

// config is what a script says of a component.
type config struct {
	t      *testing.T
	at     string
	values map[string]string
}

func (c *config) text(key, otherwise string) string {
	value, ok := c.values[key]
	if !ok {
		return otherwise
	}
	delete(c.values, key)
	return value
}

func (c *config) number(key string, otherwise float64) float64 {
	value := c.text(key, "")
	if value == "" {
		return otherwise
	}
	return parse(c.t, c.at, value)
}

func (c *config) duration(key string) time.Duration {
	d, err := time.ParseDuration(c.text(key, "0s"))
	if err != nil {
		c.t.Fatalf("%s: %v", c.at, err)
	}
	return d
}

func (c *config) is(key string) bool { return c.text(key, "false") == "true" }

func (c *config) ok(made circuit.Component, ok bool) circuit.Component {
	if !ok {
		c.t.Fatalf("%s: unknown operator", c.at)
	}
	return made
}

// kinds builds components as the documents name them.
var kinds = map[string]func(c *config, interval time.Duration) circuit.Component{
	"gradient_controller": func(c *config, _ time.Duration) circuit.Component {
		return component.NewGradient(component.GradientConfig{
			Slope:       c.number("slope", 1),
			MinGradient: c.number("min_gradient", -math.MaxFloat64), MaxGradient: c.number("max_gradient", math.MaxFloat64),
			Manual: c.is("manual_mode"), ManualKey: c.text("manual_mode_config_key", ""),
		})
	},
	"pid_controller": func(c *config, interval time.Duration) circuit.Component {
		return component.NewPID(component.PIDConfig{
			KP: c.number("kp", 0), KI: c.number("ki", 0), KD: c.number("kd", 0), Every: c.duration("evaluation_interval"),
			ResetAfterInvalid: int(c.number("reset_after_invalid_samples", 4)),
		}, interval)
	},
	"ema": func(c *config, interval time.Duration) circuit.Component {
		return component.NewEMA(component.EMAConfig{
			Window: c.duration("ema_window"), Warmup: c.duration("warmup_window"),
			MinEnvelopeFactor: c.number("min_factor", 1), MaxEnvelopeFactor: c.number("max_factor", 1),
			ValidDuringWarmup: c.is("valid_during_warmup"),
		}, interval)
	},
	"sma": func(c *config, interval time.Duration) circuit.Component {
		return component.NewSMA(component.SMAConfig{
			Window: c.duration("sma_window"), ValidDuringWarmup: c.is("valid_during_warmup"),
		}, interval)
	},
	"arithmetic_combinator": func(c *config, _ time.Duration) circuit.Component {
		return c.ok(component.NewArithmetic(c.text("operator", "")))
	},
	"decider": func(c *config, _ time.Duration) circuit.Component {
		return c.ok(component.NewDecider(component.DeciderConfig{
			Operator: c.text("operator", "gt"), TrueFor: c.duration("true_for"), FalseFor: c.duration("false_for"),
		}))
	},
	"switcher": func(*config, time.Duration) circuit.Component { return component.Switcher{} },
	"variable": func(c *config, _ time.Duration) circuit.Component {
		return component.NewVariable(c.number("constant_output", 0), c.text("config_key", ""))
	},
	"bool_variable": func(c *config, _ time.Duration) circuit.Component {
		return component.NewBoolVariable(c.is("constant_output"), c.text("config_key", ""))
	},
	"unary_operator": func(c *config, _ time.Duration) circuit.Component {
		return c.ok(component.NewUnary(c.text("operator", "")))
	},
	"extrapolator": func(c *config, _ time.Duration) circuit.Component {
		return component.NewExtrapolator(c.duration("max_extrapolation_interval"))
	},
	"max":         func(*config, time.Duration) circuit.Component { return component.Max{} },
	"min":         func(*config, time.Duration) circuit.Component { return component.Min{} },
	"first_valid": func(*config, time.Duration) circuit.Component { return component.FirstValid{} },
	"and":         func(*config, time.Duration) circuit.Component { return component.And{} },
	"or":          func(*config, time.Duration) circuit.Component { return component.Or{} },
	"inverter":    func(*config, time.Duration) circuit.Component { return component.Inverter{} },
	"copy":        func(*config, time.Duration) circuit.Component { return component.Copy{} },
	"integrator": func(c *config, interval time.Duration) circuit.Component {
		return component.NewIntegrator(component.IntegratorConfig{
			Initial: c.number("initial_value", 0), Every: c.duration("evaluation_interval"),
		}, interval)
	},
	"differentiator": func(c *config, interval time.Duration) circuit.Component {
		return component.NewDifferentiator(c.duration("window"), interval)
	},
	"pulse_generator": func(c *config, interval time.Duration) circuit.Component {
		return component.NewPulse(c.duration("true_for"), c.duration("false_for"), interval)
	},
	"holder": func(c *config, interval time.Duration) circuit.Component {
		return component.NewHolder(c.duration("hold_for"), interval)
	},
	"signal_generator": func(c *config, interval time.Duration) circuit.Component {
		var steps []component.GeneratorStep
		for step := range strings.SplitSeq(c.text("steps", ""), ",") { // target:duration
			target, length, _ := strings.Cut(step, ":")
			d, err := time.ParseDuration(length)
			if err != nil {
				c.t.Fatalf("%s: %v", c.at, err)
			}
			steps = append(steps, component.GeneratorStep{Target: parse(c.t, c.at, target), Length: d})
		}
		return component.NewGenerator(steps, interval)
	},
	"polynomial_range_function": func(c *config, _ time.Duration) circuit.Component {
		point := func(key string) component.Datapoint { // input:output
			in, out, _ := strings.Cut(c.text(key, "0:0"), ":")
			return component.Datapoint{Input: parse(c.t, c.at, in), Output: parse(c.t, c.at, out)}
		}
		before := c.number("before", math.NaN())
		return component.NewPolynomial(component.PolynomialConfig{
			Start: point("start"), End: point("end"), Degree: c.number("degree", 1),
			Clamp: !math.IsNaN(before), Before: before, After: c.number("after", 0),
		})
	},
}
