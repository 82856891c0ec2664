// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"time"
)

// modelConfig describes a model server.
type modelConfig struct {
	// Name is the model it serves.
	Name string
	// GPU is what prompts run on.
	GPU gpuConfig
	// PromptRate and OutputRate are how many tokens one undisturbed prompt reads and writes per second
	// of work. More than 0.
	PromptRate, OutputRate float64
	// MinOutput and MaxOutput bound the length of answers, in tokens, where the caller does not ask for
	// less. The length depends on prompt and Seed only.
	MinOutput, MaxOutput int
	// ChunkTokens is how many tokens a streamed message carries. At least 1.
	ChunkTokens int
	// Seed chooses the answers.
	Seed uint64
	// Quota, when not nil, is charged before a chat completion starts; see provider.
	Quota *provider
}

// maxBody bounds a request body; a prompt of this size is far beyond the context of any model.
const maxBody = 1 << 20

// model is an HTTP server shaped like Ollama and like OpenAI's API. It runs no model: it spends the time
// one would take, and answers with words that depend on prompt and seed.
type model struct {
	cfg modelConfig
	gpu *gpu
	mux *http.ServeMux
}

func newModel(cfg modelConfig) (*model, error) {
	if !(cfg.PromptRate > 0) || !(cfg.OutputRate > 0) || cfg.ChunkTokens < 1 || cfg.MinOutput < 1 || cfg.MaxOutput < cfg.MinOutput {
		return nil, fmt.Errorf("demo: model config: want positive rates, chunk and output lengths with min <= max, got %+v", cfg)
	}
	g, err := newGPU(cfg.GPU)
	if err != nil {
		return nil, err
	}
	m := &model{cfg: cfg, gpu: g, mux: http.NewServeMux()}
	m.mux.HandleFunc("/api/generate", m.ollamaGenerate)
	m.mux.HandleFunc("/api/tags", m.ollamaTags)
	m.mux.HandleFunc("/v1/chat/completions", m.openaiChat)
	m.mux.HandleFunc("/v1/models", m.openaiModels)
	return m, nil
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

// tokenCount estimates the tokens of a text as providers tell their users to: four characters each,
// rounded up.
func tokenCount(text string) int { return (len(text) + 3) / 4 }

// work returns the seconds of undisturbed work a prompt costs.
func (c *modelConfig) work(promptTokens, outputTokens int) float64 {
	return float64(promptTokens)/c.PromptRate + float64(outputTokens)/c.OutputRate
}

// alone returns how long a prompt takes on an idle server, by the clock.
func (c *modelConfig) alone(promptTokens, outputTokens int) time.Duration {
	return time.Duration(c.work(promptTokens, outputTokens) / c.GPU.Speed * float64(time.Second))
}

// answer is what the model has to say to one prompt.
type answer struct {
	promptTokens, outputTokens int
	// cut tells that the caller's limit ended the answer.
	cut  bool
	seed uint64
}

// answerTo decides the answer to a prompt. limit 0 or less means no limit.
func (m *model) answerTo(prompt string, limit int) answer {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s", m.cfg.Seed, prompt)
	a := answer{promptTokens: tokenCount(prompt), seed: h.Sum64()}
	span := uint64(m.cfg.MaxOutput - m.cfg.MinOutput + 1)
	a.outputTokens = m.cfg.MinOutput + int((a.seed>>17)%span)
	if limit > 0 && limit < a.outputTokens {
		a.outputTokens, a.cut = limit, true
	}
	return a
}

// vocabulary is what answers are made of. Every word with its space stands for one token.
var vocabulary = strings.Fields(`the flow waits until a slot is free then it runs and its answer
streams back word by word while others keep their turn by weight and nobody is lost in the queue`)

// text returns tokens from up to (not including) to of an answer.
func (a answer) text(from, to int) string {
	var b strings.Builder
	x := a.seed
	for i := range to {
		x = x*6364136223846793005 + 1442695040888963407
		if i < from {
			continue
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(vocabulary[(x>>33)%uint64(len(vocabulary))])
	}
	return b.String()
}

// generate spends the time of an answer and hands over its text, in chunks if emit wants them that way.
// It returns when the answer is complete, when ctx ends or when emit fails; the slot is free then. read is
// when the prompt was read and the first word begun.
func (m *model) generate(ctx context.Context, a answer, stream bool, emit func(text string) error) (read time.Time, err error) {
	j, err := m.gpu.begin(m.cfg.work(a.promptTokens, a.outputTokens))
	if err != nil {
		return read, err
	}
	defer j.leave()
	if err := j.wait(ctx, m.cfg.work(a.promptTokens, 0)); err != nil {
		return read, err
	}
	read = time.Now()
	chunk := a.outputTokens
	if stream {
		chunk = m.cfg.ChunkTokens
	}
	for from := 0; from < a.outputTokens; from += chunk {
		to := min(from+chunk, a.outputTokens)
		if err := j.wait(ctx, m.cfg.work(a.promptTokens, to)); err != nil {
			return read, err
		}
		if err := emit(a.text(from, to)); err != nil {
			return read, err
		}
	}
	return read, nil
}

// readJSON decodes a POST body; the error is fit for the caller.
func readJSON(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("reading the request body: %w", err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("the request body is larger than %d bytes", maxBody)
	}
	if len(body) == 0 {
		return errors.New("the request body is empty, want a JSON object")
	}
	err = json.Unmarshal(body, into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the request body is not what was expected: %q is a %s, want a %s", wrong.Field, wrong.Value, wrong.Type)
	}
	if err != nil {
		return fmt.Errorf("the request body is not JSON: %w", err)
	}
	return nil
}

// writeJSON answers with a JSON object on one line.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a failed write means that the caller has gone
}

// lines writes a streamed response: prefix, JSON, suffix, flushed one by one.
type lines struct {
	w              http.ResponseWriter
	flush          *http.ResponseController
	prefix, suffix string
}

func newLines(w http.ResponseWriter, contentType, prefix, suffix string) *lines {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache")
	return &lines{w: w, flush: http.NewResponseController(w), prefix: prefix, suffix: suffix}
}

func (l *lines) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.sendText(string(b))
}

func (l *lines) sendText(s string) error {
	if _, err := io.WriteString(l.w, l.prefix+s+l.suffix); err != nil {
		return err
	}
	return l.flush.Flush()
}
