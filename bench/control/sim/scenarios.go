// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Scenario is a service and its clients.
type Scenario struct {
	Name string
	// About says what happens, in a sentence.
	About   string
	Service Service
	Clients []Client
	// Length is how long it is, and Warm from when on it is measured, in seconds.
	Length, Warm float64
	// Change is when the step comes whose recovery is measured, in seconds; 0: none.
	Change float64
	// Step is how often curves are looked at, in seconds.
	Step float64
	// Phase is the time from the start of an interval to the first tick, as part of the interval.
	Phase float64
	// Patience is the longest that flows wait for the limit, in seconds.
	Patience float64
}

// usual is the average latency without load, before the run, in seconds.
func (s *Scenario) usual() float64 { return s.Service.Work.Mean(0) / max(s.Service.speed(0), 0.05) }

// Usual workload of the scenarios: 40 workers, 50 ms of work, so 800 flows per second.
const (
	workers  = 40
	workMean = 0.05
	full     = workers / workMean
)

func crowd(rate Curve) []Client { return []Client{{Name: "all", Rate: rate, Timeout: 2}} }

func base(name, about string, length, change float64) *Scenario {
	return &Scenario{
		Name: name, About: about, Length: length, Warm: 20, Change: change, Step: 0.05, Phase: 0.4, Patience: 0.5,
		Service: Service{Workers: Constant(workers), Work: Exponential(workMean)},
		Clients: crowd(Constant(2 * full)),
	}
}

// Scenarios returns the suite.
func Scenarios() []*Scenario {
	list := steps()
	list = append(list, services()...)
	return append(list, troubles()...)
}

// steps are the scenarios of sudden changes.
func steps() []*Scenario {
	steady := base("steady", "twice the load that the service can do", 120, 0)

	tenfold := base("load-x10", "load grows tenfold at once, from 0.3 to 3 times what the service can do", 90, 40)
	tenfold.Clients = crowd(Steps(0.3*full, 40, 3*full))

	lost := base("workers-halved", "half of the workers are lost; each flow takes as long as before", 90, 40)
	lost.Service.Workers = Steps(workers, 40, workers/2)

	slower := base("speed-halved", "each flow takes twice as long; the number of workers stays", 90, 40)
	slower.Service.Speed = Steps(1, 40, 0.5)

	more := base("workers-doubled", "twice the workers", 90, 40)
	more.Service.Workers = Steps(workers, 40, 2*workers)
	more.Clients = crowd(Constant(3 * full))

	faster := base("speed-doubled", "each flow takes half the time", 90, 40)
	faster.Service.Speed = Steps(1, 40, 2)
	faster.Clients = crowd(Constant(3 * full))
	return []*Scenario{steady, tenfold, lost, slower, more, faster}
}

// services are the scenarios of services that are hard to measure.
func services() []*Scenario {
	noise := base("noise", "the work of a flow varies a lot: lognormal, sigma 1.5", 120, 0)
	noise.Service.Work = Lognormal(workMean, 1.5)

	gc := base("gc-pauses", "the service stands still for 300 ms every 7 s", 120, 0)
	gc.Service.Speed = func(t float64) float64 {
		if math.Mod(t, 7) < 0.3 {
			return 0
		}
		return 1
	}

	shared := base("processor", "flows share 16 processors, and more than that cost throughput: a collapse looms", 120, 60)
	shared.Service.Workers, shared.Service.Sharing, shared.Service.Thrash = Constant(16), true, 0.1
	shared.Service.Work = Lognormal(0.02, 0.5)
	shared.Clients = crowd(Steps(0.5*full, 60, 1.5*full, 90, 0.5*full))

	bimodal := base("bimodal", "1 % of the flows take 100 times as long; from the middle on 4 %", 140, 70)
	bimodal.Service.Work = Bimodal(0.02, 2, Steps(0.01, 70, 0.04))
	bimodal.Clients = []Client{{Name: "all", Rate: Constant(2 * workers / (0.02 + 1.98*0.01)), Timeout: 10}}

	tiny := base("two-workers", "a service of two workers that takes 100 ms each time", 120, 0)
	tiny.Service.Workers, tiny.Service.Work = Constant(2), Fixed(0.1)
	tiny.Clients = crowd(Constant(40))

	big := base("500-workers", "a service of 500 workers", 30, 0)
	big.Service.Workers, big.Clients = Constant(500), crowd(Constant(1.5*500/workMean))
	big.Warm = 8

	long := base("long-flows", "flows take 8 s on average, as answers of language models do; 16 at a time", 600, 0)
	long.Service.Workers, long.Service.Work, long.Warm = Constant(16), Lognormal(8, 0.6), 200
	long.Clients = []Client{{Name: "all", Rate: Constant(4), Timeout: 60}}
	return []*Scenario{noise, gc, shared, bimodal, tiny, big, long}
}

// troubles are the scenarios of things that go wrong.
func troubles() []*Scenario {
	leak := base("slow-leak", "the service slows down to half its speed within two minutes", 180, 0)
	leak.Service.Speed = Line(1, 0.5, 40, 160)

	cold := base("cold-start", "a service starts at a tenth of its speed and warms up in 30 s, under full load", 90, 0)
	cold.Service.Speed, cold.Warm = Line(0.1, 1, 0, 30), 5

	storm := base("retry-storm", "clients give up after half a second and try three more times; a burst of 10 s starts it", 120, 50)
	storm.Clients = []Client{{Name: "all", Rate: Steps(0.8*full, 40, 2.5*full, 50, 0.8*full), Timeout: 0.5, Retries: 3, Backoff: 0.1}}
	storm.Patience = 0.1

	dead := base("stable-time-outs", "something the service needs is dead for 20 s: all flows fail after exactly 1 s", 120, 60)
	dead.Service.Outage, dead.Service.Hang = Steps(0, 40, 1, 60, 0), 1

	partly := base("some-time-outs", "for 40 s, 30 % of the flows hang for 1 s and fail", 120, 40)
	partly.Service.Outage, partly.Service.Hang = Steps(0, 40, 0.3, 80, 0), 1
	partly.Clients = crowd(Constant(1.5 * full))

	elephant := base("elephant", "guests come in eight times as many as subscribers; priorities are 50 and 200", 90, 40)
	elephant.Clients = []Client{
		{Name: "guests", Rate: Steps(0.4*full, 40, 2.4*full), Priority: 50, Timeout: 2},
		{Name: "subscribers", Rate: Steps(0.3*full, 40, 0.6*full), Priority: 200, Timeout: 2},
	}

	idle := base("idle-then-full", "nothing for five minutes, but one flow a second; then twice the load", 400, 340)
	idle.Clients = crowd(Steps(2*full, 40, 1, 340, 2*full))

	flapping := base("flapping", "a third of the workers come and go every 15 s", 140, 0)
	flapping.Service.Workers = func(t float64) float64 {
		if math.Mod(t, 30) >= 15 {
			return 26
		}
		return workers
	}
	return []*Scenario{leak, cold, storm, dead, partly, elephant, idle, flapping}
}

// Day is a day at a low rate whose latency wanders, with twice the load in its last ten minutes.
func Day() *Scenario {
	const day, rush = 86400.0, 600.0
	s := base("day", "a day: 2 to 20 flows per second, latency that wanders; then ten minutes of twice the load", day, day-rush)
	s.Step, s.Warm = 1, 60
	s.Service.Workers, s.Service.Work = Constant(4), Exponential(workMean)
	s.Service.Work.Draw = func(r *rand.Rand, t float64) float64 {
		return workMean * (1 + 0.3*math.Sin(2*math.Pi*t/7200)) * r.ExpFloat64()
	}
	s.Service.Work.Mean = func(t float64) float64 { return workMean * (1 + 0.3*math.Sin(2*math.Pi*t/7200)) }
	s.Clients = []Client{{Name: "all", Timeout: 2, Rate: func(t float64) float64 {
		if t >= day-rush {
			return 160
		}
		return 11 - 9*math.Cos(2*math.Pi*t/day)
	}}}
	return s
}

// FullDay is a day of overload.
func FullDay() *Scenario {
	const mean = 0.25
	s := base("full-day", "a day of twice the load, to a service of four workers", 86400, 0)
	s.Step, s.Warm = 1, 60
	s.Service.Workers, s.Service.Work = Constant(4), Exponential(mean)
	s.Clients = []Client{{Name: "all", Rate: Constant(2 * 4 / mean), Timeout: 4}}
	return s
}

// Contender is a way to find limits, with a name.
type Contender struct {
	Name string
	New  func(*Scenario) Policy
}

// Contenders returns what is compared. The static ones know what the service can do when a scenario begins.
func Contenders() []Contender {
	slots := func(part float64) func(*Scenario) Policy {
		return func(s *Scenario) Policy {
			return Static{max(1, math.Ceil(part*s.Service.Workers(0))), math.Inf(1)}
		}
	}
	return []Contender{
		{"none", func(*Scenario) Policy { return NoLimit }},
		{"slots, right", slots(1.1)},
		{"slots, twice", slots(2)},
		{"slots, half", slots(0.5)},
		{"rate, right", func(s *Scenario) Policy { return Static{math.Inf(1), s.Service.capacity(0)} }},
		{"AIMD, Aperture", func(s *Scenario) Policy { return NewApertureAIMD(s.usual()) }},
		{"AIMD", func(s *Scenario) Policy { return NewAIMD(s.usual()) }},
		{"gradient2", func(*Scenario) Policy { return NewGradient2() }},
		{"Vegas", func(*Scenario) Policy { return NewVegas() }},
		{"adaptive, 1 s", func(*Scenario) Policy { return NewAdaptive(time.Second) }},
		{"adaptive, 100 ms", func(*Scenario) Policy { return NewAdaptive(100 * time.Millisecond) }},
	}
}
