"""The bibliography that every component cites."""

from __future__ import annotations

CITATIONS = {
    "erion2021": "Erion, Janizek, Sturmfels, Lundberg, Lee (2021). Improving performance of deep learning models "
    "with axiomatic attribution priors and expected gradients. Nature Machine Intelligence 3, 620-631.",
    "erion2019": "Erion, Janizek, Sturmfels, Lundberg, Lee (2019). Learning explainable models using attribution "
    "priors. arXiv:1906.10670v1.",
    "janizek2021": "Janizek, Sturmfels, Lee (2021). Explaining explanations: axiomatic feature interactions for deep "
    "networks. Journal of Machine Learning Research 22(104), 1-54.",
    "weinberger2020": "Weinberger, Janizek, Lee (2020). Learning deep attribution priors based on prior knowledge. "
    "NeurIPS 33.",
    "ross2017": "Ross, Hughes, Doshi-Velez (2017). Right for the right reasons: training differentiable models by "
    "constraining their explanations. IJCAI.",
    "ross2018": "Ross (2018). Training machine learning models by regularizing their explanations. Thesis, Harvard.",
    "singh2022": "Singh, Ha, Yu (2022). Interpreting and improving deep-learning models with reality checks.",
    "rieger2020": "Rieger, Singh, Murdoch, Yu (2020). Interpretations are useful: penalizing explanations to align "
    "neural networks with prior knowledge. ICML.",
    "murdoch2018": "Murdoch, Liu, Yu (2018). Beyond word importance: contextual decomposition to extract interactions "
    "from LSTMs. ICLR.",
    "simonyan2014": "Simonyan, Vedaldi, Zisserman (2014). Deep inside convolutional networks. ICLR workshop.",
    "shrikumar2017": "Shrikumar, Greenside, Kundaje (2017). Learning important features through propagating "
    "activation differences. ICML.",
    "sundararajan2017": "Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks. ICML.",
    "smilkov2017": "Smilkov, Thorat, Kim, Viegas, Wattenberg (2017). SmoothGrad: removing noise by adding noise.",
    "zeiler2014": "Zeiler, Fergus (2014). Visualizing and understanding convolutional networks. ECCV.",
    "selvaraju2017": "Selvaraju et al. (2017). Grad-CAM: visual explanations from deep networks via gradient-based "
    "localization. ICCV.",
    "sturmfels2020": "Sturmfels, Lundberg, Lee (2020). Visualizing the impact of feature attribution baselines. "
    "Distill.",
    "rao2023": "Rao, Boehle, Parchami-Araghi, Schiele (2023). Studying how to efficiently and effectively guide "
    "models with explanations. ICCV.",
    "drucker1992": "Drucker, Le Cun (1992). Improving generalization performance using double backpropagation. "
    "IEEE Transactions on Neural Networks 3(6).",
    "hurley2009": "Hurley, Rickard (2009). Comparing measures of sparsity. IEEE Transactions on Information Theory.",
    "yeh2019": "Yeh, Hsieh, Suggala, Inouye, Ravikumar (2019). On the (in)fidelity and sensitivity of explanations. "
    "NeurIPS.",
    "adebayo2018": "Adebayo et al. (2018). Sanity checks for saliency maps. NeurIPS.",
    "wang2020": "Wang et al. (2020). Score-CAM: score-weighted visual explanations for convolutional neural networks. "
    "CVPR workshop.",
    "zhang2016": "Zhang, Lin, Brandt, Shen, Sclaroff (2016). Top-down neural attention by excitation backprop. ECCV.",
    "arras2022": "Arras, Osman, Samek (2022). CLEVR-XAI: a benchmark dataset. Information Fusion 81.",
    "selvaraju2019": "Selvaraju, Lee, Shen, Jin, Ghosh, Heck, Batra, Parikh (2019). Taking a HINT: leveraging "
    "explanations to make vision and language models more grounded. ICCV.",
    "schramowski2020": "Schramowski et al. (2020). Making deep neural networks right for the right scientific reasons "
    "by interacting with their explanations. Nature Machine Intelligence 2, 476-486.",
    "dreyer2024": "Dreyer, Pahde, Anders, Samek, Lapuschkin (2024). From hope to safety: unlearning biases of deep "
    "models via gradient penalization in latent space. AAAI.",
    "bishop1993": "Bishop (1993). Curvature-driven smoothing: a learning algorithm for feedforward networks. IEEE "
    "Transactions on Neural Networks 4(5).",
    "rifai2011": "Rifai, Mesnil, Vincent, Muller, Bengio, Dauphin, Glorot (2011). Higher order contractive "
    "auto-encoder. ECML PKDD.",
}
