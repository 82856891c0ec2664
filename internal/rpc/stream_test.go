// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

// deafStream is a client that cannot be answered.
type deafStream struct{ messageStream }

func (deafStream) SendMsg(any) error { return errors.New("connection reset") }

func startsOf(from, n int) []*flowv1.StreamStart {
	starts := make([]*flowv1.StreamStart, n)
	for i := range starts {
		starts[i] = &flowv1.StreamStart{Id: uint64(from + i), Shape: 1}
	}
	return starts
}

// TestUnansweredMessageHoldsNoSlot shows that flows admitted by a message whose answer is never sent do
// not keep their slots until these expire.
func TestUnansweredMessageHoldsNoSlot(t *testing.T) {
	shape := []*flowv1.Shape{{Id: 1, ControlPoint: "queue"}}
	for name, in := range map[string]*flowv1.StreamRequest{
		"answer cannot be sent":  {Shapes: shape, Starts: startsOf(1, 3)},
		"a later start is wrong": {Shapes: shape, Starts: append(startsOf(1, 3), &flowv1.StreamStart{Id: 9, Shape: 99})},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, queueSpec(1, 5))
			c := newFlowStream(context.Background(), e, deafStream{})
			if err := c.handle(in); err == nil {
				t.Fatal("no error")
			}
			if n := used(e); n != 0 {
				t.Errorf("%v slots are held by flows nobody was told of", n)
			}
		})
	}
}

// TestUnreadVerdictsAreBounded shows that a client which starts and cancels without reading cannot make
// the server keep verdicts without end.
func TestUnreadVerdictsAreBounded(t *testing.T) {
	const n = 60_000
	e := newEngine(t, queueSpec(1, 1))
	c := newFlowStream(context.Background(), e, deafStream{})
	fill, _ := serve(t, e)
	if _, err := fill.Start(context.Background(), &flowv1.StartRequest{ControlPoint: "queue"}); err != nil {
		t.Fatal(err)
	}
	cancels := make([]uint64, n)
	for i := range cancels {
		cancels[i] = uint64(i)
	}
	shape := []*flowv1.Shape{{Id: 1, ControlPoint: "queue"}}
	if err := c.handle(&flowv1.StreamRequest{Shapes: shape, Starts: startsOf(0, n)}); err != nil {
		t.Fatal(err)
	}
	if err := c.handle(&flowv1.StreamRequest{Cancels: cancels}); err != nil {
		t.Fatal(err)
	}
	err := c.handle(&flowv1.StreamRequest{Starts: startsOf(0, n)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want resource_exhausted", err)
	}
	c.cancelAll()
	c.abandon()
	if w, u := waiting(e), used(e); w != 0 || u != 1 {
		t.Errorf("%d flows wait and %v slots are held, want 0 and the 1 of another client", w, u)
	}
}
