// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	mistralControlPoint = "mistral-prompt"
	mistralPolicy       = "demo-mistral"
	mistralSlots        = 2
	mistralUsers        = 5 // per tier
	mistralPrompts      = 25
)

// The model of the story: an undisturbed prompt takes 10 to 30 seconds, which at 10 words a second is
// 100 to 280 tokens of output plus up to two seconds to read the prompt. A device with 10 prompts on its
// 2 slots completes two thirds of the work per second that it does with 2: 1/(1+0.125·(10−2)/2).
func mistralModel(cfg Config) modelConfig {
	return modelConfig{
		Name:       "mistral",
		GPU:        gpuConfig{Slots: mistralSlots, Penalty: 0.125, MaxJobs: 512, Speed: cfg.Scale},
		PromptRate: 100, OutputRate: 10,
		MinOutput: 100, MaxOutput: 280,
		ChunkTokens: 8,
		Seed:        cfg.Seed,
	}
}

func newMistral(cfg Config) (*experiment, error) {
	mc := mistralModel(cfg)
	m, err := newModel(mc)
	if err != nil {
		return nil, err
	}
	return &experiment{
		name:  "mistral",
		title: "Mistral: 10 users share a language model that serves 2 prompts at a time",
		unit:  "prompts",
		story: []string{
			fmt.Sprintf("The model server is simulated: it speaks Ollama's and OpenAI's HTTP APIs and spends the time a model would take. "+
				"A prompt alone takes %g s per token read plus %g s per token written, 10 to 30 s in all.", 1/mc.PromptRate, 1/mc.OutputRate),
			fmt.Sprintf("It runs %d prompts at full speed. With n > %d prompts at once they share the device equally, and the device as a whole slows down to 1 / (1 + %g x (n - %d) / %d) of its best, as a GPU does that holds too many contexts.",
				mc.GPU.Slots, mc.GPU.Slots, mc.GPU.Penalty, mc.GPU.Slots, mc.GPU.Slots),
			"Every user sends one prompt, reads the streamed answer, and sends the next. Users, prompts and server are the same in both phases.",
			fmt.Sprintf("The policy lets %d prompts run and makes the others wait in a weighted-fair queue in which the paid tier counts 5 and the open-source tier 1.", mistralSlots),
			"Priority takes nothing for nothing: while paid users keep the queue full, the open-source tier gets a sixth of the model, so its longest waits may grow even where its median falls.",
			"Wait is the latency of a request minus the time the same prompt takes on an idle server: the time lost to others.",
		},
		users:        tieredUsers([]string{"paid", "open_source"}, mistralUsers),
		tiers:        []string{"paid", "open_source"},
		perUser:      mistralPrompts,
		stagger:      2,
		patience:     3600,
		minPatience:  time.Minute,
		policies:     []document{{name: mistralPolicy, file: "policy.yaml", text: mistralDocument(cfg)}},
		model:        m,
		limit:        mistralSlots,
		controlPoint: mistralControlPoint,
		labels: func(u user) map[string]string {
			return map[string]string{"user_id": u.id, "user_tier": u.tier, "model": "mistral"}
		},
		call: callMistral,
	}, nil
}

// tieredUsers makes n users per tier, taking turns, so that no tier starts ahead of the other.
func tieredUsers(tiers []string, n int) []user {
	var users []user
	for i := range n {
		for _, t := range tiers {
			users = append(users, user{id: fmt.Sprintf("%s-%d", t, i+1), tier: t, index: len(users)})
		}
	}
	return users
}

// mistralDocument is the policy. A slot whose end was never reported is free again after a minute of the
// story, but not before 2 s of the clock, so that a hiccup of the machine is not taken for a lost end.
func mistralDocument(cfg Config) string {
	inflight := max(clock(cfg.Scale).real(60), 2*time.Second)
	return fmt.Sprintf(`# At most %d prompts run at once; the others wait, paying users with five times the weight.
blueprint: concurrency-scheduling/base
policy:
  policy_name: %s
  concurrency_scheduler:
    max_concurrency: %d
    selectors:
      - control_point: %s
    concurrency_limiter:
      # 60 s at the speed of the story, at least 2 s by the clock
      max_inflight_duration: %s
    scheduler:
      fairness_label_key: user_id
      workloads:
        - name: paid
          label_matcher:
            match_labels:
              user_tier: paid
          parameters:
            priority: 5
        - name: open_source
          label_matcher:
            match_labels:
              user_tier: open_source
          parameters:
            priority: 1
`, mistralSlots, mistralPolicy, mistralSlots, mistralControlPoint, yamlSeconds(inflight))
}

// yamlSeconds writes a duration as policy documents do.
func yamlSeconds(d time.Duration) string { return fmt.Sprintf("%gs", d.Seconds()) }

// promptFor chooses the nth prompt of a user: every user sends each of the prompts once, in an order of
// its own.
func promptFor(seed uint64, u user, n int) string {
	order := rand.New(rand.NewPCG(seed, uint64(u.index))).Perm(len(prompts))
	return prompts[order[n%len(prompts)]]
}

// callMistral is what a user does: ask, prompt, read, report.
func callMistral(ctx context.Context, r *runner, u user, n int) Sample {
	begin := time.Now()
	t := r.gate.start(ctx, r.exp.controlPoint, r.exp.labels(u))
	s, v := sampleOf(t), t.verdict()
	if !v.run {
		t.end(-1, nil)
		return s
	}
	final, err := r.generate(ctx, promptFor(r.cfg.Seed, u, n))
	latency := time.Since(begin)
	t.end(-1, err)
	if err != nil {
		return s.failed(err)
	}
	clock := r.clock()
	alone := r.exp.model.cfg.alone(final.PromptEvalCount, final.EvalCount)
	s.Tokens = final.PromptEvalCount + final.EvalCount
	s.LatencySeconds = clock.story(latency)
	s.WaitSeconds = clock.story(max(0, latency-alone))
	s.QueueSeconds = clock.story(v.waited)
	return s
}

// sampleOf starts a sample from a verdict.
func sampleOf(t ticket) Sample {
	v := t.verdict()
	if !v.run {
		return Sample{Outcome: outcomeDenied, Reason: strings.TrimSuffix(v.reason+": "+v.message, ": ")}
	}
	return Sample{Outcome: outcomeOK, Unguarded: v.err != nil}
}

// failed turns a sample into one of a request that got no answer.
func (s Sample) failed(err error) Sample {
	s.Outcome, s.Reason = outcomeFailed, err.Error()
	return s
}

// generate sends one prompt and reads the answer to its end.
func (r *runner) generate(ctx context.Context, prompt string) (*generateFinal, error) {
	resp, err := r.post(ctx, "/api/generate", map[string]any{"model": "mistral", "prompt": prompt})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var chunk generateFinal
		if err := json.Unmarshal(lines.Bytes(), &chunk); err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		if chunk.Done {
			return &chunk, nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return nil, errors.New("the answer ended in the middle")
}

// post sends JSON to the simulated service. The caller closes the body.
func (r *runner) post(ctx context.Context, path string, body any) (*http.Response, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+r.exp.key)
	return r.client.Do(req)
}

// statusError describes an answer that is not a success.
func statusError(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // the status alone will do
	return fmt.Errorf("the service answered %s: %s", resp.Status, bytes.TrimSpace(text))
}

// prompts are what users ask. Each is different, so that no answer can be reused.
var prompts = []string{
	"Explain weighted fair queueing to somebody who has only ever stood in a supermarket line.",
	"Write a short product description for a garden gate that closes by itself.",
	"Summarise the causes of the French Revolution in five sentences.",
	"Translate into French: the river rises slowly, then all at once.",
	"Give me three names for a bakery that opens only at night.",
	"What is the difference between latency and throughput? Use an example with buses.",
	"Write a SQL query that finds customers without orders in the last ninety days.",
	"Draft a polite reminder for an invoice that is two weeks overdue.",
	"How does a canal lock work? Keep it under one hundred words.",
	"Suggest a vegetarian dinner for six guests, with a shopping list sorted by shop aisle and a timetable.",
	"Explain recursion without using the word itself.",
	"Write a haiku about a queue that never gets shorter.",
	"List the planets by mass and say what each is mostly made of.",
	"Rewrite this sentence in the active voice: the decision was taken by the committee.",
	"Plan a weekend in Lisbon for two people who dislike crowds and love tiles, trams and custard tarts.",
	"What should a good incident report contain, and in which order?",
	"Compose a limerick about an engineer who forgot to set a deadline.",
	"Compare token buckets with sliding windows for an audience of product managers, with one advantage each.",
	"Give a beginner a plan to run five kilometres in eight weeks.",
	"What are the trade-offs between optimistic and pessimistic locking?",
	"Explain why the sky is blue and sunsets are red.",
	"Write a regular expression for ISO 8601 dates and explain each part.",
	"Propose an agenda for a thirty minute meeting about load testing before a big sale.",
	"Describe the taste of coffee to somebody who cannot smell.",
	"How would you explain back pressure to a plumber, and what would the plumber answer?",
}
