//! Which labels the result of a query can have, and whether all that it names is there.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{
        AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector,
        parse as parse_promql, value::ValueType,
    },
};

use super::{contract::Contract, files::Rule};

/// Names of labels.
pub type Labels = BTreeSet<String>;

/// The contract and what the rules record.
pub struct Known {
    contract: Contract,
    recorded: BTreeMap<String, Vec<Rule>>,
}

impl Known {
    /// With these rules.
    pub fn new(contract: Contract, rules: Vec<Rule>) -> Self {
        let mut recorded: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for rule in rules {
            if let Some(name) = rule.record.clone() {
                recorded.entry(name).or_default().push(rule);
            }
        }
        Self { contract, recorded }
    }

    /// The labels that a query's result can have; what is wrong, where it names something that is
    /// not there.
    pub fn labels_of(&self, query: &str) -> Result<Labels, String> {
        let expr = parse_promql(query)?;
        self.labels(&expr)
            .map_err(|error| format!("{error}, in {query}"))
    }

    fn labels(&self, expr: &Expr) -> Result<Labels, String> {
        match expr {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Paren(paren) => self.labels(&paren.expr),
            Expr::Subquery(subquery) => self.labels(&subquery.expr),
            Expr::Unary(unary) => self.labels(&unary.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
            Expr::Extension(_) => Err("an extension of PromQL".to_owned()),
        }
    }

    fn selector(&self, selector: &VectorSelector) -> Result<Labels, String> {
        let name = selector
            .name
            .as_deref()
            .ok_or("a selector without a name")?;
        let labels = match self.recorded.get(name) {
            Some(rules) => {
                let mut all = Labels::new();
                for rule in rules {
                    all.extend(self.labels_of(&rule.expr)?);
                    all.extend(rule.labels.keys().cloned());
                }
                all
            }
            None => (self.contract.labels(name)).ok_or(format!("no metric {name}"))?,
        };
        for matcher in &selector.matchers.matchers {
            need(&labels, &matcher.name, name)?;
            self.value(matcher)?;
        }
        Ok(labels)
    }

    /// A label of few values is compared with one of them.
    fn value(&self, matcher: &Matcher) -> Result<(), String> {
        let Some(values) = self.contract.values(&matcher.name) else {
            return Ok(());
        };
        let alternatives: Vec<&str> = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
            MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
        };
        match alternatives.iter().find(|value| !values.contains(**value)) {
            Some(value) => Err(format!("{} is never {value}", matcher.name)),
            None => Ok(()),
        }
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let labels = self.labels(&aggregate.expr)?;
        match &aggregate.modifier {
            None => Ok(Labels::new()),
            Some(LabelModifier::Include(by)) => {
                for label in &by.labels {
                    need(&labels, label, "an aggregation")?;
                }
                Ok(by.labels.iter().cloned().collect())
            }
            Some(LabelModifier::Exclude(without)) => {
                let without: Labels = without.labels.iter().cloned().collect();
                Ok(&labels - &without)
            }
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Labels, String> {
        let (left, right) = (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?);
        let matching = binary
            .modifier
            .as_ref()
            .and_then(|modifier| modifier.matching.as_ref());
        if let Some(LabelModifier::Include(on)) = matching {
            for label in &on.labels {
                need(&left, label, "the left side")?;
                need(&right, label, "the right side")?;
            }
        }
        if binary.lhs.value_type() == ValueType::Scalar {
            return Ok(right);
        }
        let mut labels = left;
        if binary.op.to_string() == "or" {
            labels.extend(right);
        } else if let Some(group) = binary.modifier.as_ref().and_then(|it| it.card.labels()) {
            labels.extend(group.labels.iter().cloned());
        }
        Ok(labels)
    }

    fn call(&self, call: &Call) -> Result<Labels, String> {
        let arguments = &call.args.args;
        let mut labels = Labels::new();
        for argument in arguments {
            labels.extend(self.labels(argument)?);
        }
        match call.func.name {
            // They drop what there was; absent() keeps labels of matchers, which no rule here has.
            "absent" | "scalar" | "time" | "vector" => Ok(Labels::new()),
            "label_replace" => {
                let [_, to, _, from, _] = &arguments[..] else {
                    return Err("label_replace takes five arguments".to_owned());
                };
                if let Expr::StringLiteral(from) = &**from
                    && !from.val.is_empty()
                {
                    need(&labels, &from.val, "label_replace")?;
                }
                if let Expr::StringLiteral(to) = &**to {
                    labels.insert(to.val.clone());
                }
                Ok(labels)
            }
            _ => Ok(labels),
        }
    }
}

fn need(labels: &Labels, label: &str, of: &str) -> Result<(), String> {
    if labels.contains(label) {
        Ok(())
    } else {
        Err(format!("{of} has no label {label}"))
    }
}
