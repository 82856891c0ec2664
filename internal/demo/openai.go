// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The wire format of OpenAI's chat completions, as far as the demos speak it.
type (
	chatMessage struct {
		Role    string `json:"role,omitempty"`
		Content string `json:"content"`
	}
	chatRequest struct {
		Model               string        `json:"model"`
		Messages            []chatMessage `json:"messages"`
		Stream              bool          `json:"stream,omitempty"`
		MaxTokens           int           `json:"max_tokens,omitempty"`
		MaxCompletionTokens int           `json:"max_completion_tokens,omitempty"`
		StreamOptions       struct {
			IncludeUsage bool `json:"include_usage,omitempty"`
		} `json:"stream_options,omitzero"`
	}
	chatUsage struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
		TotalTokens      int `json:"total_tokens"`
	}
	chatChoice struct {
		Index        int          `json:"index"`
		Message      *chatMessage `json:"message,omitempty"`
		Delta        *chatDelta   `json:"delta,omitempty"`
		FinishReason *string      `json:"finish_reason"`
	}
	chatDelta struct {
		Role    string `json:"role,omitempty"`
		Content string `json:"content,omitempty"`
	}
	chatCompletion struct {
		ID      string       `json:"id"`
		Object  string       `json:"object"`
		Created int64        `json:"created"`
		Model   string       `json:"model"`
		Choices []chatChoice `json:"choices"`
		Usage   *chatUsage   `json:"usage,omitempty"`
	}
	openaiFault struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	openaiError struct {
		Error openaiFault `json:"error"`
	}
)

func writeFault(w http.ResponseWriter, status int, kind, code, message string) {
	fault := openaiFault{Message: message, Type: kind}
	if code != "" {
		fault.Code = &code
	}
	writeJSON(w, status, openaiError{fault})
}

// openaiChat answers POST /v1/chat/completions: one JSON object, or server-sent events that end with
// [DONE].
func (m *model) openaiChat(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeFault(w, http.StatusMethodNotAllowed, "invalid_request_error", "", "Not allowed to "+r.Method+" on this path, want POST.")
		return
	}
	var req chatRequest
	if err := readJSON(r, &req); err != nil {
		writeFault(w, http.StatusBadRequest, "invalid_request_error", "", err.Error())
		return
	}
	if req.Model != m.cfg.Name {
		writeFault(w, http.StatusNotFound, "invalid_request_error", "model_not_found",
			fmt.Sprintf("The model %q does not exist, this server has %q.", req.Model, m.cfg.Name))
		return
	}
	if len(req.Messages) == 0 {
		writeFault(w, http.StatusBadRequest, "invalid_request_error", "", "\"messages\" is empty, want at least one message.")
		return
	}
	a := m.answerTo(promptOf(req.Messages), req.limit())
	settle, ok := m.charge(w, r, a, req.limit())
	if !ok {
		return
	}
	c := newOpenaiReply(m, w, req, a)
	_, err := m.generate(r.Context(), a, req.Stream, c.emit)
	if err != nil {
		settle(a.promptTokens)
	} else {
		settle(a.promptTokens + a.outputTokens)
	}
	if errors.Is(err, errBusy) {
		writeFault(w, http.StatusServiceUnavailable, "server_error", "overloaded", err.Error())
		return
	}
	if err == nil {
		c.finish()
	}
}

// charge asks the quota, if there is one, and answers 429 itself when there is too little left.
func (m *model) charge(w http.ResponseWriter, r *http.Request, a answer, limit int) (settle func(actual int), ok bool) {
	if m.cfg.Quota == nil {
		return func(int) {}, true
	}
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if key == "" {
		writeFault(w, http.StatusUnauthorized, "invalid_request_error", "invalid_api_key", "You didn't provide an API key.")
		return nil, false
	}
	if limit <= 0 {
		limit = m.cfg.MaxOutput
	}
	estimate := a.promptTokens + limit
	short := m.cfg.Quota.take(key, estimate)
	if short == nil {
		return func(actual int) { m.cfg.Quota.settle(key, estimate-actual) }, true
	}
	if short.wait < never {
		w.Header().Set("Retry-After", strconv.FormatFloat(math.Ceil(short.wait.Seconds()), 'f', 0, 64))
		w.Header().Set("Retry-After-Ms", strconv.FormatFloat(math.Ceil(short.wait.Seconds()*1000), 'f', 0, 64))
	}
	writeFault(w, http.StatusTooManyRequests, short.kind, "rate_limit_exceeded", short.message(m.cfg.Name))
	return nil, false
}

// promptOf joins messages as a chat template would.
func promptOf(messages []chatMessage) string {
	parts := make([]string, len(messages))
	for i, msg := range messages {
		parts[i] = msg.Content
	}
	return strings.Join(parts, "\n")
}

func (r *chatRequest) limit() int {
	if r.MaxCompletionTokens > 0 {
		return r.MaxCompletionTokens
	}
	return r.MaxTokens
}

// openaiReply is one completion on its way out.
type openaiReply struct {
	w         http.ResponseWriter
	lines     *lines // nil: one JSON object at the end
	answer    answer
	head      chatCompletion
	withUsage bool
	text      string
	opened    bool
}

func newOpenaiReply(m *model, w http.ResponseWriter, req chatRequest, a answer) *openaiReply {
	c := &openaiReply{w: w, answer: a, withUsage: req.StreamOptions.IncludeUsage}
	c.head = chatCompletion{
		ID:      fmt.Sprintf("chatcmpl-%016x", a.seed),
		Object:  "chat.completion",
		Created: time.Now().Unix(),
		Model:   m.cfg.Name,
	}
	if req.Stream {
		c.head.Object = "chat.completion.chunk"
		c.lines = newLines(w, "text/event-stream", "data: ", "\n\n")
	}
	return c
}

func (c *openaiReply) emit(text string) error {
	if c.lines == nil {
		c.text = text
		return nil
	}
	delta := &chatDelta{Content: text}
	if !c.opened {
		delta.Role, c.opened = "assistant", true
	}
	return c.event(chatChoice{Delta: delta})
}

// event sends one chunk with the given choices.
func (c *openaiReply) event(choices ...chatChoice) error {
	chunk := c.head
	chunk.Choices = choices
	return c.lines.send(chunk)
}

func (c *openaiReply) finish() {
	reason := c.answer.reason()
	usage := &chatUsage{c.answer.promptTokens, c.answer.outputTokens, c.answer.promptTokens + c.answer.outputTokens}
	if c.lines == nil {
		c.head.Choices = []chatChoice{{Message: &chatMessage{"assistant", c.text}, FinishReason: &reason}}
		c.head.Usage = usage
		writeJSON(c.w, http.StatusOK, c.head)
		return
	}
	// A failed write means that the caller has gone, and then there is nobody to tell.
	_ = c.event(chatChoice{Delta: &chatDelta{}, FinishReason: &reason})
	if c.withUsage {
		chunk := c.head
		chunk.Choices, chunk.Usage = []chatChoice{}, usage
		_ = c.lines.send(chunk)
	}
	_ = c.lines.sendText("[DONE]")
}

// openaiModels answers GET /v1/models with the one model there is.
func (m *model) openaiModels(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		writeFault(w, http.StatusMethodNotAllowed, "invalid_request_error", "", "Not allowed to "+r.Method+" on this path, want GET.")
		return
	}
	type entry struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []entry `json:"data"`
	}{"list", []entry{{m.cfg.Name, "model", 0, "sluice-demo"}}})
}
